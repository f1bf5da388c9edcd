use super::*;

/// Makes settings from `config` (`key=value`, the strongest last) and `env` (`NAME=value`).
fn settings(config: &[&str], env: &[&str]) -> Settings {
    let values = |from: &[&str], name: &str| -> Vec<String> {
        from.iter()
            .filter_map(|pair| pair.split_once('='))
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .collect()
    };
    Settings::new(|key| values(config, key), |name| values(env, name).pop())
}

fn options(set: &Settings) -> Result<Options> {
    set.options(&Changes::default())
}

#[test]
fn every_default_is_sound() {
    let bare = settings(&[], &[]);
    let auto = AgentChoice { backend: "auto".into(), model: None };
    assert_eq!(options(&bare).unwrap(), Options { agent: auto, ..Options::default() });
    assert_eq!((bare.verify().unwrap(), bare.verify_timeout().unwrap()), (Vec::new(), None));
    assert_eq!(bare.preferences().unwrap(), Preferences::default());
    assert!(!bare.allow_nested().unwrap() && bare.push_notes().unwrap());
    assert_eq!((bare.prompts().unwrap(), bare.review_bytes().unwrap()), (None, 65536));
    assert!(bare.all().iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn the_environment_outdoes_the_configuration_which_outdoes_the_default() {
    let config = ["agentloop.jobs=2", "agentloop.jobs=3", "agentloop.patience=0"];
    let set = settings(&config, &["AGENTLOOP_JOBS=7", "AGENTLOOP_PATIENCE="]);
    let counts = |set: &Settings| {
        let Options { jobs, budget, .. } = options(set).unwrap();
        (jobs.get(), budget.patience.get(), budget.max_iterations.get())
    };
    assert_eq!(counts(&set), (7, 0, 4));
    let origins: Vec<Origin> = ["agentloop.jobs", "agentloop.patience", "agentloop.maxIterations"]
        .iter()
        .map(|key| set.all().iter().find(|entry| entry.key == *key).unwrap().origin)
        .collect();
    assert_eq!(origins, [Origin::Environment, Origin::Config, Origin::Default]);
    assert_eq!(counts(&settings(&config, &[])), (3, 0, 4));
    let spent = settings(&["agentloop.maxTokens=100000"], &["AGENTLOOP_MAX_COST=2.5"]);
    let budget = options(&spent).unwrap().budget;
    assert_eq!((budget.max_tokens.unwrap().get(), budget.max_cost.unwrap().get()), (100_000, 2.5));
}

#[test]
fn checks_are_many_and_an_empty_value_clears_them() {
    let names = |set: &Settings| -> Vec<String> { set.verify().unwrap().into_iter().map(|check| check.name).collect() };
    let config = ["agentloop.verify=a", "agentloop.verify=", "agentloop.verify=cargo test", "agentloop.verify=b 'c d'"];
    let set = settings(&config, &[]);
    assert_eq!(names(&set), ["cargo test", "b 'c d'"]);
    assert_eq!(set.verify().unwrap()[1].argv, ["b", "c d"]);
    assert_eq!(names(&settings(&config, &["AGENTLOOP_VERIFY=x\n\n y z \n"])), ["x", "y z"]);
}

#[test]
fn what_worktrees_get_is_many_things() {
    let set = settings(&["agentloop.copy=.env", "agentloop.copy=node_modules/", "agentloop.setup=npm 'ci now'"], &[]);
    assert_eq!(set.copy(), [".env", "node_modules/"]);
    assert_eq!(set.setup().unwrap()[0].argv, ["npm", "ci now"]);
    assert_eq!(settings(&[], &["AGENTLOOP_SETUP=a\nb c"]).setup().unwrap()[1].argv, ["b", "c"]);
    assert_eq!(settings(&["agentloop.setupTimeout=1.5m"], &[]).setup_timeout().unwrap().map(Seconds::get), Some(90.0));
}

#[test]
fn an_error_names_the_place_of_the_bad_value() {
    let error = options(&settings(&["agentloop.maxIterations=0"], &[])).unwrap_err().report();
    let wanted = "error: invalid value '0' for 'git config agentloop.maxIterations' (expected a whole number from 1";
    assert!(error.starts_with(wanted), "{error}");
    assert!(error.contains("\nhint: 'git config --unset-all agentloop.maxIterations' takes it away"), "{error}");
    for (variable, value) in [
        ("AGENTLOOP_TIMEOUT", "-1"),
        ("AGENTLOOP_TIMEOUT", "0"),
        ("AGENTLOOP_TIMEOUT", "inf"),
        ("AGENTLOOP_TIMEOUT", "NaN"),
        ("AGENTLOOP_MAX_SECONDS", "1e300"),
        ("AGENTLOOP_MAX_COST", "-0"),
        ("AGENTLOOP_MAX_TOKENS", "0"),
        ("AGENTLOOP_JOBS", "1025"),
        ("AGENTLOOP_MAX_SUBGOALS", "513"),
        ("AGENTLOOP_PERMISSIONS", "some"),
        ("AGENTLOOP_WORKER", "/m"),
        ("AGENTLOOP_RECHECK", "maybe"),
        ("AGENTLOOP_VERIFY", "open 'quote"),
        ("AGENTLOOP_SIGN", "maybe"),
        ("AGENTLOOP_CLEANUP", "sometimes"),
        ("AGENTLOOP_DURABLE", "surely"),
    ] {
        let set = settings(&[], &[&format!("{variable}={value}")]);
        let errors: Vec<Error> = [options(&set).err(), set.preferences().err()].into_iter().flatten().collect();
        assert_eq!(errors.len(), 1, "{variable}={value}");
        let wanted = format!("invalid value '{value}' for the variable {variable} (expected ");
        assert!(errors[0].to_string().starts_with(&wanted), "{}", errors[0]);
    }
}

#[test]
fn what_is_given_hides_a_setting_that_is_wrong() {
    let set = settings(&[], &["AGENTLOOP_JOBS=many"]);
    let mut given = Changes::default();
    given.set(Id::Jobs, &["2".to_owned()]).unwrap();
    assert_eq!(set.options(&given).unwrap().jobs.get(), 2);
    assert!(options(&set).is_err());
}

#[test]
fn changes_change_what_they_hold_and_nothing_else() {
    let mut changes = Changes::default();
    assert_eq!(changes.apply(&Options::default()), None);
    for (id, text) in [(Id::Model, "m"), (Id::MaxTokens, "7"), (Id::Worker, "codex/x")] {
        assert!(!changes.has(id));
        changes.set(id, &[text.to_owned()]).unwrap();
        assert!(changes.has(id));
    }
    let begun = Options { agent: AgentChoice { backend: "mock".into(), model: None }, ..Options::default() };
    let after = changes.apply(&begun).unwrap();
    assert_eq!((after.agent.to_string().as_str(), after.budget.max_tokens.unwrap().get()), ("mock/m", 7));
    assert_eq!(after.agent_for(Role::Subagent).to_string(), "codex/x");
    assert_eq!(changes.apply(&after), None);
    let sent = serde_json::to_string(&changes).unwrap();
    assert_eq!(serde_json::from_str::<Changes>(&sent).unwrap(), changes);
}

#[test]
fn a_home_relative_path_is_below_home() {
    let set = settings(&["agentloop.worktreeDir=~/trees", "agentloop.prompts=/no/such/folder"], &["HOME=/home/x"]);
    assert_eq!(set.preferences().unwrap().worktree_dir, Some(PathBuf::from("/home/x/trees")));
    assert!(set.prompts().unwrap_err().to_string().contains("a folder that exists"));
}

#[test]
fn names_are_what_their_entry_makes_of_them() {
    for (place, entry) in TABLE.iter().enumerate() {
        assert_eq!(entry.id as usize, place);
        assert_eq!(entry.env, format!("AGENTLOOP_{}", entry.name.to_ascii_uppercase().replace('-', "_")));
        let key = entry.key.strip_prefix("agentloop.").unwrap().to_ascii_lowercase();
        assert_eq!(key, entry.name.replace('-', ""), "{}", entry.key);
        assert!(entry.meaning.len() <= 80, "{}", entry.meaning);
        let argument = entry.argument.map_or("", |argument| argument.name);
        assert!(["", "verify_commands", &entry.name.replace('-', "_")].contains(&argument), "{argument}");
        // A default in the help text must be the actual default.
        let help = entry.flag.map_or("", |flag| flag.help);
        let named = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
        assert!(named.is_none_or(|named| named == "--backend" || named == entry.default), "{help}");
    }
}
