use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// A machine with a state directory and one clone.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["home", "repo/.git"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn common(&self) -> PathBuf {
        self.path("repo/.git")
    }

    fn bases(&self, state: Option<&str>) -> Bases {
        Bases::of(state.map(|name| self.path(name)), Some(self.path("home"))).with_elsewhere()
    }

    fn ensure(&self) -> Store {
        Store::ensure(&self.common(), &self.bases(None)).unwrap()
    }

    fn find(&self) -> Option<Store> {
        Store::find(&self.common(), &self.bases(None))
    }
}

fn run() -> RunId {
    RunId::new("a goal", 7)
}

#[test]
fn bases_are_absolute_and_known_once() {
    let path = |text: &str| Some(PathBuf::from(text));
    for (state, home, expected) in [
        (path("/s"), path("/h"), vec!["/s/git-agentloop", "/h/.local/state/git-agentloop"]),
        (path("/h/.local/state"), path("/h"), vec!["/h/.local/state/git-agentloop"]),
        (path("s"), path("/h"), vec!["/h/.local/state/git-agentloop"]),
        (path(""), path("h"), vec![]),
        (None, None, vec![]),
    ] {
        let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
        assert_eq!(Bases::of(state, home).own, expected);
    }
}

#[test]
fn ids_and_keys_are_parsed() {
    assert_eq!(from_hex::<2>("0aff"), Some([10, 255]));
    assert_eq!(to_hex(&[10, 255]), "0aff");
    for wrong in ["", "0a", "0aff0", "0AFF", "0afg", "+aff", "0afé"] {
        assert_eq!(from_hex::<2>(wrong), None, "{wrong}");
    }
    let id = "0123456789abcdef0123456789abcdef";
    assert_eq!(CloneId::parse(&format!("{id}\n")).unwrap().0, id);
    for wrong in ["../../../etc/passwd", "0123456789abcdef0123456789abcde/", &format!("{id}\n\n"), &format!(" {id}")] {
        assert_eq!(CloneId::parse(wrong), None, "{wrong}");
    }
    let key = "00".repeat(32);
    assert_eq!(Secret::parse(format!("17 {key}\n").as_bytes()), Some(Secret { inode: 17, key: [0; 32] }));
    for wrong in [format!("17 {key}"), format!("-1 {key}\n"), format!("17 {key}0\n"), "17\n".to_owned()] {
        assert_eq!(Secret::parse(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_code_depends_on_the_key_and_on_every_part() {
    let (one, other) = (Key::new([1; 32]), Key::new([2; 32]));
    assert_eq!(one.mac(&[b"a", b"b"]), one.mac(&[b"a", b"b"]));
    assert_ne!(one.mac(&[b"a", b"b"]), one.mac(&[b"ab", b""]));
    assert_ne!(one.mac(&[b"a"]), other.mac(&[b"a"]));
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let machine = Machine::new();
    assert!(machine.find().is_none());
    let made = machine.ensure();
    let again = machine.ensure();
    let found = machine.find().unwrap();
    assert_eq!((&made.dir, &made.id), (&again.dir, &again.id));
    assert_eq!((&made.dir, made.key.mac(&[b"x"])), (&found.dir, found.key.mac(&[b"x"])));
    let of_run = made.run(&run());
    assert!(!of_run.exists());
    assert_eq!(of_run.read("authority").unwrap(), None);
    of_run.write("authority", b"{}").unwrap();
    of_run.make_dir("inbox").unwrap();
    assert_eq!(found.run(&run()).read("authority").unwrap().as_deref(), Some(&b"{}"[..]));
    of_run.forget("authority").unwrap();
    of_run.forget("authority").unwrap();
    assert_eq!(of_run.read("authority").unwrap(), None);
    for (path, mode) in [(made.dir.join(SECRET), 0o600), (of_run.dir.clone(), 0o700), (of_run.dir.join("inbox"), 0o700)]
    {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    of_run.remove().unwrap();
    of_run.remove().unwrap();
    assert!(!of_run.exists());
}

#[test]
fn drivers_that_start_at_once_share_a_store() {
    let machine = Machine::new();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| machine.ensure().id.0)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_moved_repository_keeps_its_store_and_a_copy_gets_one_of_its_own() {
    let machine = Machine::new();
    let made = machine.ensure();
    let copied = std::process::Command::new("cp").arg("-a").args([machine.path("repo"), machine.path("copy")]).status();
    assert!(copied.unwrap().success());
    fs::rename(machine.path("repo"), machine.path("moved")).unwrap();
    let (moved, copy) = (machine.path("moved/.git"), machine.path("copy/.git"));
    assert_eq!(Store::find(&moved, &machine.bases(None)).unwrap().id, made.id);
    assert!(Store::find(&copy, &machine.bases(None)).is_none());
    let own = Store::ensure(&copy, &machine.bases(None)).unwrap();
    assert_ne!(own.id, made.id);
    assert_ne!(own.key.mac(&[b"x"]), made.key.mac(&[b"x"]));
    assert_eq!(Store::find(&moved, &machine.bases(None)).unwrap().id, made.id);
}

#[test]
fn a_process_with_less_of_an_environment_finds_what_another_wrote() {
    let machine = Machine::new();
    let (with, without) = (machine.bases(Some("state")), machine.bases(None));
    let made = Store::ensure(&machine.common(), &with).unwrap();
    assert!(made.dir.starts_with(machine.path("state")));
    assert!(Store::find(&machine.common(), &without).is_none(), "it read the list before there was one");
    assert_eq!(machine.find().unwrap().dir, made.dir);
    assert_eq!(machine.ensure().dir, made.dir);
    // The reverse works too.
    let other = Machine::new();
    let made = other.ensure();
    assert_eq!(Store::ensure(&other.common(), &other.bases(Some("state"))).unwrap().dir, made.dir);
    // A list that other users could have written is not read.
    let list = machine.path("home/.local/state/git-agentloop").join(ELSEWHERE);
    fs::set_permissions(&list, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(machine.find().is_none());
}

#[test]
fn what_an_agent_did_to_the_id_is_put_back() {
    let machine = Machine::new();
    let made = machine.ensure();
    let id = machine.common().join(ID);
    let spoil: [&dyn Fn(); 4] =
        [&|| (), &|| fs::write(&id, "0".repeat(32)).unwrap(), &|| symlink("/dev/zero", &id).unwrap(), &|| {
            fs::create_dir_all(id.join("in/the/way")).unwrap();
        }];
    for spoil in spoil {
        fs::remove_file(&id).unwrap();
        spoil();
        assert!(machine.find().is_none());
        made.mark(&machine.common()).unwrap();
        assert_eq!(machine.find().unwrap().id, made.id);
    }
    fs::remove_dir_all(machine.path("repo/.git/agentloop")).unwrap();
    made.mark(&machine.common()).unwrap();
    assert_eq!(machine.find().unwrap().id, made.id);
    // The store itself is created again for what its driver writes.
    fs::remove_dir_all(machine.path("home/.local")).unwrap();
    made.run(&run()).write("authority", b"{}").unwrap();
    made.mark(&machine.common()).unwrap();
    assert_eq!(machine.find().unwrap().run(&run()).read("authority").unwrap().as_deref(), Some(&b"{}"[..]));
}

#[test]
fn what_others_could_have_written_is_not_believed() {
    let machine = Machine::new();
    let made = machine.ensure();
    made.run(&run()).write("authority", b"{}").unwrap();
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for path in [made.dir.clone(), made.dir.join("..").canonicalize().unwrap(), made.dir.join(SECRET)] {
        let was = path.metadata().unwrap().permissions().mode();
        set_mode(&path, was | 0o060);
        assert!(machine.find().is_none(), "{}", path.display());
        set_mode(&path, was);
    }
    let authority = made.run(&run()).dir.join("authority");
    set_mode(&authority, 0o666);
    assert_eq!(made.run(&run()).read("authority").unwrap(), None);
    fs::remove_file(&authority).unwrap();
    symlink(made.dir.join(SECRET), &authority).unwrap();
    assert_eq!(made.run(&run()).read("authority").unwrap(), None);
    // A link replaces the store, or the secret in it.
    fs::rename(&made.dir, machine.path("aside")).unwrap();
    symlink(machine.path("aside"), &made.dir).unwrap();
    assert!(machine.find().is_none());
}

#[test]
fn without_a_place_to_write_there_is_no_store() {
    let machine = Machine::new();
    fs::write(machine.path("home/.local"), "a file").unwrap();
    let error = Store::ensure(&machine.common(), &machine.bases(None)).unwrap_err().chain();
    assert!(error.contains("private store") && error.contains(".local"), "{error}");
    let error = Store::ensure(&machine.common(), &Bases::of(None, None)).unwrap_err().chain();
    assert!(error.contains("neither XDG_STATE_HOME nor HOME"), "{error}");
    assert!(!machine.common().join(ID).exists());
}

type Deed = fn(&Machine, &Store);

#[test]
fn a_store_goes_once_its_clone_is_gone_for_good() {
    let year = std::time::Duration::from_hours(366 * 24);
    let used = |machine: &Machine, store: &Store, ago: std::time::Duration| {
        store.mark(&machine.common()).unwrap();
        let file = File::options().write(true).open(store.dir.join(gone::PLACE)).unwrap();
        file.set_modified(std::time::SystemTime::now() - ago).unwrap();
    };
    let cases: [(&str, bool, bool, Deed); 6] = [
        ("gone for good", true, true, |_, _| {}),
        ("used lately", false, true, |_, _| {}),
        ("still there", true, false, |_, _| {}),
        ("on another file system, which is not mounted", true, true, |machine, store| {
            let place = format!("abc\0{}", machine.common().display());
            fs::write(store.dir.join(gone::PLACE), place).unwrap();
            let file = File::options().write(true).open(store.dir.join(gone::PLACE)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("without a note of its place", true, true, |_, store| fs::remove_file(store.dir.join(gone::PLACE)).unwrap()),
        ("under a name that is none", true, true, |_, store| {
            fs::rename(&store.dir, store.dir.with_file_name("mine")).unwrap();
        }),
    ];
    for (at, (what, is_unused, is_missing, deed)) in cases.into_iter().enumerate() {
        let machine = Machine::new();
        let store = machine.ensure();
        store.run(&run()).write("seals", b"x").unwrap();
        used(&machine, &store, if is_unused { year } else { std::time::Duration::ZERO });
        if is_missing {
            fs::remove_dir_all(machine.path("repo")).unwrap();
        }
        deed(&machine, &store);
        let goes = usize::from(at == 0);
        assert_eq!(machine.bases(None).remove_gone(), goes, "{what}");
        assert_eq!(fs::read_dir(store.dir.parent().unwrap()).unwrap().count(), 1 - goes, "{what}");
    }
    // The removal of this store was interrupted.
    let machine = Machine::new();
    let store = machine.ensure();
    fs::rename(&store.dir, store.dir.with_added_extension("gone")).unwrap();
    assert_eq!(machine.bases(None).remove_gone(), 1);
}
