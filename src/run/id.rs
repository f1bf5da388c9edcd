//! Names that a record holds. Each is validated when it is read, so that none is an option, a path or a control sequence.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Lengths of an object id in hexadecimal digits, for SHA-1 and SHA-256.
const OID_LENGTHS: [usize; 2] = [40, 64];
/// Id that git writes for "no object".
const NO_OBJECT: &str = "0000000000000000000000000000000000000000";
/// Longest subgoal id, in characters of `[a-z0-9_-]`.
const SUBGOAL_LENGTH: usize = 32;
/// Longest session id, in characters of `[a-z0-9]`.
const SESSION_LENGTH: usize = 32;
/// Longest part of a transcript's path, in characters.
const PART_LENGTH: usize = 64;

/// Longest slug in a [`RunId`], in characters.
const SLUG_LENGTH: usize = 32;
/// Crockford's base 32 in lower case, without `i`, `l`, `o` and `u`, so that an id can be read aloud.
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Length of the random part of a [`RunId`], and of a [`SessionId`].
const RANDOM_LENGTH: usize = 6;

/// Defines a text type that is validated by every constructor.
macro_rules! checked {
    ($($(#[$doc:meta])* $name:ident($default:expr) = $is_sound:expr, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self(String::from($default))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Unfit;

            fn try_from(text: String) -> Result<Self, Unfit> {
                let is_sound: fn(&str) -> bool = $is_sound;
                if is_sound(&text) { Ok(Self(text)) } else { Err(Unfit($expected)) }
            }
        }

        impl FromStr for $name {
            type Err = Unfit;

            fn from_str(text: &str) -> Result<Self, Unfit> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<$name> for str {
            fn eq(&self, other: &$name) -> bool {
                self == other.0
            }
        }

        impl PartialEq<$name> for String {
            fn eq(&self, other: &$name) -> bool {
                *self == other.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

checked! {
    /// The id of a git object: 40 or 64 hexadecimal digits in lower case. The default is git's id for "no object".
    Oid(NO_OBJECT) = is_oid, "an object id (40 or 64 hexadecimal digits)";
    /// The id of a subgoal: `[a-z0-9_-]{1,32}`. The default is empty and no valid id.
    SubgoalId("") = is_subgoal_id, "a subgoal id (1 to 32 of a-z, 0-9, '_' and '-')";
    /// The id of a session, the work of one driver process on a run.
    SessionId("") = is_session_id, "a session id (1 to 32 of a-z and 0-9)";
    /// The token with which the user answers a run's questions: `<run>.<six characters>`.
    Token("") = is_token, "a token (a run id, a dot and a session id)";
    /// The path of a transcript under a run's output ref: `iter1/s1/1.out` for a worker, `iter1/check1.out` for a check.
    TranscriptPath("") = is_transcript_path, "a transcript's path (like iter1/s1/1.out)";
    /// The run and iteration that a fork continues: `<run>@<iteration>`.
    ForkPoint("") = is_fork_point, "a run and an iteration (like fix-login-3k9vqp@2)";
}

/// An error: the text has not the expected form, which the error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit(pub(super) &'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Unfit {}

impl From<Unfit> for crate::error::Error {
    fn from(unfit: Unfit) -> Self {
        Self::failed(unfit.to_string())
    }
}

/// The id of a run, which names its branch, notes ref, worktree and record: `<slug>-<6 characters>`. It is always a valid
/// ref component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Makes an id from `words` (a goal, or a name that the user chose) and `random`.
    #[must_use]
    pub fn new(words: &str, random: u64) -> Self {
        Self(format!("{}-{}", slug_or_run(words), base32(random)))
    }

    /// Makes an id from `name` alone, or `None` if no character of it can be in an id.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(slug(name)).filter(|slug| !slug.is_empty()).map(Self)
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<Self, InvalidRunId> {
        text.parse()
    }
}

/// An error: the text is not a run id.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidRunId;

impl fmt::Display for InvalidRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a run id is words of a-z and 0-9 joined by '-', like greet or fix-login-3k9vqp")
    }
}

impl std::error::Error for InvalidRunId {}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, InvalidRunId> {
        let is_random = |end: &str| end.len() == RANDOM_LENGTH && end.bytes().all(|byte| CROCKFORD.contains(&byte));
        let name = text.rsplit_once('-').filter(|(_, end)| is_random(end)).map_or(text, |(name, _)| name);
        (!name.is_empty() && slug(name) == name).then(|| Self(text.to_owned())).ok_or(InvalidRunId)
    }
}

/// Makes the id of a session: six random characters.
#[must_use]
pub fn session_id(random: u64) -> SessionId {
    base32(random).try_into().unwrap_or_default() // it is always valid
}

fn base32(mut random: u64) -> String {
    let mut text = String::with_capacity(RANDOM_LENGTH);
    for _ in 0..RANDOM_LENGTH {
        text.push(char::from(CROCKFORD[(random & 31) as usize]));
        random >>= 5;
    }
    text
}

/// Makes a slug, which is `run` if `words` has no usable character.
fn slug_or_run(words: &str) -> String {
    let slug = slug(words);
    if slug.is_empty() { "run".to_owned() } else { slug }
}

/// Makes a slug: lower-case words of `a-z0-9` joined by single dashes, at most 32 characters.
fn slug(words: &str) -> String {
    let mut slug = String::new();
    for character in words.chars() {
        if slug.len() == SLUG_LENGTH {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

fn is_oid(text: &str) -> bool {
    OID_LENGTHS.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns whether `id` is valid in refs, paths and trailers.
#[must_use]
pub fn is_subgoal_id(id: &str) -> bool {
    (1..=SUBGOAL_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// Returns whether `path` is relative and stays inside its directory.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_session_id(text: &str) -> bool {
    (1..=SESSION_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_run_id(text: &str) -> bool {
    text.parse::<RunId>().is_ok()
}

fn is_token(text: &str) -> bool {
    text.split_once('.').is_some_and(|(run, random)| is_run_id(run) && is_session_id(random))
}

fn is_fork_point(text: &str) -> bool {
    text.split_once('@').is_some_and(|(run, number)| is_run_id(run) && number.parse::<u32>().is_ok())
}

fn is_transcript_path(text: &str) -> bool {
    let is_plain = |part: &str| {
        (1..=PART_LENGTH).contains(&part.len())
            && !part.starts_with(['.', '-'])
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let has_known_form = match parts.as_slice() {
        [_, name] => name.starts_with("check"),
        parts => parts.len() == 3,
    };
    has_known_form && text.starts_with("iter") && text.strip_suffix(".out").is_some() && parts.into_iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 14] =
        ["", "-rf", "--output=x", "..", "../x", "/x", "a/../b", "a b", "a\0", "a\n", "\u{1b}[2J", "\u{202e}", "A", "é"];

    #[test]
    fn a_name_is_what_its_place_takes() {
        for (oid, sound) in
            [("a".repeat(40), true), ("0".repeat(64), true), ("a".repeat(41), false), ("A".repeat(40), false)]
        {
            assert_eq!(oid.parse::<Oid>().is_ok(), sound, "{oid}");
        }
        assert!("s1".parse::<SubgoalId>().is_ok() && "x".repeat(33).parse::<SubgoalId>().is_err());
        assert!("k3v9qp".parse::<SessionId>().is_ok());
        assert!("fix-000000.k3v9qp".parse::<Token>().is_ok() && "Fix!.k3v9qp".parse::<Token>().is_err());
        assert!("fix-000000@2".parse::<ForkPoint>().is_ok() && "fix-000000@".parse::<ForkPoint>().is_err());
        for path in ["iter1/s1/1.out", "iter12/s1.merge/2.out", "iter0/check12.out"] {
            assert!(path.parse::<TranscriptPath>().is_ok(), "{path}");
        }
        for path in [
            "iter1/../1.out",
            "iter1/s1/x",
            "/iter1/s1/1.out",
            "iter1/s1/s1/1.out",
            "iter1/.git/1.out",
            "iter1/1.out",
            "check1.out",
        ] {
            assert!(path.parse::<TranscriptPath>().is_err(), "{path}");
        }
        for (path, inside) in
            [("a/b", true), ("..a", true), ("", false), ("/a", false), ("a/../b", false), ("a//b", false)]
        {
            assert_eq!(is_inside(path), inside, "{path}");
        }
        for text in HOSTILE {
            assert!(text.parse::<Oid>().is_err() && text.parse::<SessionId>().is_err(), "{text:?}");
            assert!(text.parse::<Token>().is_err() && text.parse::<ForkPoint>().is_err(), "{text:?}");
            assert!(text.parse::<TranscriptPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_run_id_is_a_slug_and_six_characters() {
        assert_eq!(RunId::new("Fix the  login/bug!", 0).as_str(), "fix-the-login-bug-000000");
        assert_eq!(RunId::new("修复登录", 0).as_str(), "run-000000");
        assert_eq!(RunId::new(&"long ".repeat(40), u64::MAX).as_str(), "long-long-long-long-long-long-lo-zzzzzz");
    }

    #[test]
    fn only_what_is_made_here_is_parsed() {
        let long = "a".repeat(33);
        let over = format!("{long}-000000");
        for text in [
            "",
            "-",
            "a-",
            "-a",
            "a--b",
            "a.b",
            "A",
            "../x-000000",
            "A-000000",
            "a--b-000000",
            "-000000",
            "a\n-000000",
            &long,
            &over,
        ] {
            assert_eq!(text.parse::<RunId>(), Err(InvalidRunId), "{text:?}");
        }
        for id in
            [RunId::new("x", 77), RunId::new(&long, 77), RunId::named(&long).unwrap(), RunId::named("Greet!").unwrap()]
        {
            assert_eq!(id.as_str().parse(), Ok(id));
        }
        assert_eq!(RunId::named("Greet them!").unwrap().as_str(), "greet-them");
        assert_eq!(RunId::named("修复"), None);
    }
}
