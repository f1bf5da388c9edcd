//! Tests of each form in each wrapping, of streams that are cut anywhere, and of ordinary texts, which stay.

use super::*;

/// Generates letters and digits, the same each time.
fn key(length: usize, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // A digit, a capital and a lower-case letter come first: chance may leave one out.
    let rest = (3..length).map(|_| char::from(alphabet[random.usize(..62)]));
    "7aQ".chars().chain(rest).take(length).collect()
}

fn hex(length: usize) -> String {
    "0123456789abcdef3c1f".chars().cycle().take(length).collect()
}

fn upper(length: usize) -> String {
    "7QXP3ZKA2M".chars().cycle().take(length).collect()
}

/// The value of a variable that has no known form.
const VALUE: &str = "q7/Zr+w9=Lm2&x\"Vb4é<T";

fn redactor() -> Redactor {
    let env = [
        ("MY_API_KEY", VALUE),
        ("my_api_key", "lower7Case9key3"),
        ("GITHUB_PAT", "pat0pat1pat2pat3"),
        ("SIGNING_PASSPHRASE", "correct horse battery"),
        ("NPM_CONFIG__AUTH", "bnBtOnNlY3JldDEyMzQ="),
        ("DATABASE_URL", "postgres://user:s3cret-p4ss@db/x"),
        ("PRIMARY_KEY", "id"),
        ("SORT_KEY", "created_at"),
        ("PGPASSWORD", "postgres"),
        ("PWD", "/home/someone/a7"),
        ("SSL_KEY", "/etc/ssl/private/server7.pem"),
        ("HOME", "/home/someone"),
    ];
    Redactor::new(env.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

/// Lists texts with secrets, and the part that must be removed.
fn secrets() -> Vec<(String, String)> {
    let whole = |secret: String| (secret.clone(), secret);
    let mut secrets: Vec<(String, String)> = shapes::SHAPES
        .iter()
        .map(|shapes::Shape(start, alphabet, least)| {
            let rest = match alphabet {
                shapes::Alphabet::Hex => hex(*least),
                shapes::Alphabet::Upper => upper(*least),
                _ => key((*least).max(16), 1),
            };
            whole(format!("{start}{rest}"))
        })
        .collect();
    secrets.push(whole(format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", key(60, 2), key(43, 3))));
    let password = key(20, 4);
    secrets.push((format!("https://bob:{password}@example.invalid/x.git"), password.clone()));
    secrets.push((format!("postgresql+psycopg://u:{password}@db/x"), password.clone()));
    secrets.push((format!("https://{password}@example.invalid/"), password.clone()));
    for name in ["DB_PASSWORD=", "api_key = ", "clientSecret: ", "x-api-key: ", "AccountKey=", "--token "] {
        secrets.push((format!("{name}{password}"), password.clone()));
    }
    secrets.push((format!("Authorization: Bearer {}", key(40, 5)), key(40, 5)));
    secrets.push(("authorization: Basic dXNlcjpwYXNzMQ==".to_owned(), "dXNlcjpwYXNzMQ".to_owned()));
    secrets.extend(
        [VALUE, "lower7Case9key3", "pat0pat1pat2pat3", "correct horse battery", "s3cret-p4ss"]
            .map(|value| whole(value.to_owned())),
    );
    secrets
}

fn base64_of(text: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain("+/".chars()).collect();
    let mut encoded = String::new();
    for three in text.chunks(3) {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            encoded.push(if at > three.len() { '=' } else { alphabet[bits >> (18 - 6 * at) & 63] });
        }
    }
    encoded
}

#[test]
fn each_shape_is_found_in_each_wrapping() {
    let redactor = redactor();
    let json = |text: &str| serde_json::to_string(text).unwrap();
    for (secret, hidden) in secrets() {
        let colour_inside = format!("{}\x1b[1;31m{}", &hidden[..3], &hidden[3..]);
        let wrapped = [
            secret.clone(),
            format!("the key is {secret} ."),
            format!("\x1b[31m{secret}\x1b[0m"),
            format!("\\u001b[31m{secret}\\u001b[0m"),
            secret.replace(&hidden, &colour_inside),
            json(&format!("first\n{secret}\nlast")),
            json(&json(&format!("{secret}\tlast"))),
            format!("'{secret}'"),
            format!("token={secret}"),
            format!("key%20{secret}"),
            format!("a\\t{secret}"),
            format!("{secret}, and so on"),
            base64_of(format!("{{\"key\":\"{secret}\"}}").as_bytes()),
            format!("x={}", base64_of(format!("the first key is {secret}").as_bytes())),
        ];
        for text in wrapped {
            let clean = redactor.clean(&text);
            let [seen, encoded] = [json(&hidden)[1..json(&hidden).len() - 1].to_owned(), text.clone()];
            assert!(!clean.contains(&hidden) && !clean.contains(&seen), "{text:?} became {clean:?}");
            assert!(clean.contains(REDACTED) && *clean != encoded, "{text:?} became {clean:?}");
        }
    }
}

#[test]
fn what_is_unmistakable_is_found_glued_to_a_word() {
    for secret in [
        format!("ghp_{}", key(36, 1)),
        format!("sk-ant-api03-{}", key(40, 2)),
        format!("npm_{}", key(36, 3)),
        format!("AIza{}", key(35, 4)),
        format!("AKIA{}", upper(16)),
    ] {
        assert_eq!(Redactor::default().clean(&format!("x{secret};")), "x[redacted];");
    }
}

#[test]
fn encodings_of_known_values_are_found_wherever_they_begin() {
    let redactor = redactor();
    for before in ["", "a", "ab", "abc"] {
        let encoded = base64_of(format!("\0\u{1}{before}{VALUE}\0").as_bytes());
        let clean = redactor.clean(&encoded);
        assert!(clean.contains(REDACTED), "{encoded}");
    }
    let percent = "x=q7%2FZr%2Bw9%3DLm2%26x%22Vb4%C3%A9%3CT&y";
    assert_eq!(redactor.clean(percent), "x=[redacted]&y");
    assert_eq!(redactor.clean(r#"{"a":"q7/Zr+w9=Lm2\u0026x\"Vb4é\u003cT"}"#), r#"{"a":"[redacted]"}"#);
}

#[test]
fn a_key_that_wrapped_base64_hides_is_found_wherever_its_lines_break() {
    let secret = format!("ghp_{}", key(36, 1));
    for (before, length, newline) in
        [(0, 76, "\n"), (30, 64, "\n"), (31, 64, "\r\n"), (40, 76, "\n  "), (100, 64, "\n"), (25, 48, "\n")]
    {
        let hidden =
            format!("{}key: {secret}, and so on to the end of it all", "words ".repeat(30)[..before].to_owned());
        let encoded = base64_of(hidden.as_bytes());
        let lines: Vec<&str> = encoded.as_bytes().chunks(length).map(|line| str::from_utf8(line).unwrap()).collect();
        assert!(lines.len() > 1);
        let clean = Redactor::default().clean(&format!("data:\n{}\nplain\n", lines.join(newline))).into_owned();
        assert!(clean.starts_with("data:\n") && clean.ends_with("\nplain\n") && clean.contains(REDACTED), "{clean}");
        let left: String = clean.split_whitespace().filter(|line| !["data:", "plain"].contains(line)).collect();
        assert!(
            !left.contains(&base64_of(secret.as_bytes())[..8]) && left.len() < encoded.len() - 40,
            "{before}: {clean}"
        );
    }
    let lines = [base64_of(&[b'a'; 57]), base64_of(&[b'b'; 57]), base64_of(b"the end")].join("\n");
    assert_eq!(Redactor::default().clean(&lines), lines);
}

fn pem(label: &str, lines: usize) -> String {
    let body: Vec<String> = (0..lines).map(|line| key(64, line as u64)).chain([key(12, 99)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", body.join("\n"))
}

#[test]
fn private_keys_are_taken_out_whole() {
    let redactor = Redactor::default();
    for label in ["RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"] {
        let key = pem(label, 6);
        let diff = key.replace('\n', "\n+");
        let numbered = key.lines().zip(1..).map(|(line, at)| format!("{at:>6}\t{line}")).collect::<Vec<_>>().join("\n");
        let encrypted = key.replacen('\n', "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,7\n\n", 1);
        let escaped = serde_json::to_string(&key).unwrap();
        let twice = serde_json::to_string(&escaped).unwrap();
        for text in [&key, &diff, &numbered, &encrypted, &escaped, &twice] {
            let clean = redactor.clean(text);
            assert!(clean.len() < 60 && clean.contains(REDACTED), "{clean}");
        }
        let cut = &key[..key.len() / 2];
        assert!(redactor.clean(cut).len() < 60, "one that is cut off");
        assert!(redactor.clean(&base64_of(key.as_bytes())).contains(REDACTED));
    }
    for text in [
        "if text.contains(\"-----BEGIN RSA PRIVATE KEY-----\") {\n    return;\n}\n",
        &pem("CERTIFICATE", 3),
        &pem("PUBLIC KEY", 3),
    ] {
        assert_eq!(redactor.clean(text), text);
    }
}

fn streamed(redactor: &Redactor, pieces: &[&[u8]]) -> String {
    let (mut stream, mut clean) = (redactor.stream(), Vec::new());
    for piece in pieces {
        stream.push(piece, &mut clean);
    }
    stream.finish(&mut clean);
    String::from_utf8_lossy(&clean).into_owned()
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let redactor = redactor();
    let ghp = format!("ghp_{}", key(36, 1));
    let long = format!("{}\"{ghp}\"{}", "word ".repeat(9000), "more ".repeat(9000));
    for text in [
        format!("a\x1b[31m{ghp}\x1b[0m\nb={VALUE}\nlast"),
        format!("before\n{}\nafter {ghp}", pem("PRIVATE KEY", 2)),
        format!("{}\n", serde_json::to_string(&pem("PRIVATE KEY", 2)).unwrap()),
    ] {
        let whole = redactor.clean(&text).into_owned();
        assert!(whole.contains(REDACTED));
        for cut in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(streamed(&redactor, &[first, second]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(streamed(&redactor, &bytes), whole);
    }
    for size in [1000, 4099, 65536] {
        let pieces: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
        assert_eq!(streamed(&redactor, &pieces), redactor.clean(&long), "a long line in pieces of {size}");
    }
}

#[test]
fn complete_lines_come_at_once_and_little_is_held() {
    let (mut stream, mut clean) = (Redactor::default().stream(), Vec::new());
    stream.push(b"one\ntwo\nthr", &mut clean);
    assert_eq!(clean, b"one\ntwo\n");
    stream.push(&b"a".repeat(1 << 20), &mut clean);
    assert!(clean.len() > (1 << 20) - 20_000);
    let endless = format!("\nsk-proj-7aQ{}", "b".repeat(300_000));
    stream.push(endless.as_bytes(), &mut clean);
    clean.clear();
    endless.as_bytes().chunks(5000).for_each(|piece| stream.push(piece, &mut clean));
    stream.finish(&mut clean);
    assert!(clean.len() < 20_000, "a secret without end stays out: {}", clean.len());
}

#[test]
fn ordinary_text_stays() {
    let redactor = redactor();
    let image: Vec<u8> = std::iter::repeat_with({
        let mut random = fastrand::Rng::with_seed(7);
        move || random.u8(..)
    })
    .take(400_000)
    .collect();
    let image = base64_of(&image);
    let lines: Vec<&str> = image.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let sources = concat!(
        include_str!("find.rs"),
        include_str!("names.rs"),
        include_str!("shapes.rs"),
        include_str!("stream.rs")
    );
    let texts = [
        lock.as_str(),
        sources,
        &image,
        &lines.join("\n"),
        "commit 3f786850e387550fdab836ed7e6dc881de23001b\ntree 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6 cache_key=f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "sha512-YI7Q2xkfmcrFnW0iZ6yBqVIOjhTR8Pr3bD4jlVgA/uS9LgFtwKxc5Mazo1eQvHnsE2XJrG3OdBUpWktN0hC6yA==",
        "Cache restored from key: node-cache-Linux-x64-npm-0f2c9e2d8d7c0a1b5e3f4a6b7c8d9e0f1a2b3c4d",
        "PRIMARY_KEY=id SORT_KEY=created_at CACHE_KEY=node-modules-linux-x64-12345678",
        "let token = tokens[index2]; password = get_password2(user); api_key = self.config2.api_key;",
        "const secret = process.env.MY_SECRET_1; token: string; \"max_tokens\": 4096, \"total_tokens\":123456",
        "function(e){var t=e.key,n=e.token;return t==n?a(t,1):b(n,2)}var key=\"ArrowLeft\",keyCode=37;",
        "disk-ant-abcdefghijklmn the AKIA prefix ghp_short task-0123456789abcdef0123456789abcdef risk-averse",
        "GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }} PASSWORD=$PASSWORD API_KEY=<your-api-key-12345678>",
        "http://localhost:3000/@vite/client https://example.com/a:b@c git@github.com:a/b.git ssh://git@host/x",
        "https://registry.npmjs.org/@types/node/-/node-20.11.30.tgz https://u:$PASS@host https://u:[redacted]@host",
        "/home/someone created_at /etc/ssl/private/server7.pem postgres://localhost/postgres id",
        "npm_config_user_agent npm_package_json npm_lifecycle_event hf_hub_download sk_learn fw_version",
        "author = \"x\" monkey=banana12345678901 keyboard: qwertz1234567890123 turkey",
    ];
    for text in texts {
        let clean = redactor.clean(text);
        let at = clean.bytes().zip(text.bytes()).position(|(new, old)| new != old);
        assert_eq!(at.map(|at| &text[at.saturating_sub(40)..(at + 60).min(text.len())]), None);
        assert!(matches!(clean, Cow::Borrowed(_)));
    }
}

#[test]
fn bytes_that_are_no_text_stay() {
    let redactor = redactor();
    let clean = |text: &'static [u8]| redactor.clean_bytes(text).into_owned();
    assert_eq!(clean(b"key=pat0pat1pat2pat3;"), b"key=[redacted];");
    assert_eq!(clean(b"\xff key=pat0pat1pat2pat3\xc3;"), b"\xff key=[redacted]\xc3;");
}
