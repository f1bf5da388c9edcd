use super::*;

/// Settings of `config` (`key=value`, the strongest last) and `env` (`NAME=value`).
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

#[test]
fn every_default_is_sound() {
    let bare = settings(&[], &[]);
    assert_eq!((bare.agent().unwrap().backend.as_str(), bare.model()), ("auto", None));
    assert_eq!((bare.max_iterations().unwrap(), bare.max_task_retries().unwrap()), (4, 1));
    assert_eq!((bare.max_seconds().unwrap(), bare.max_agent_calls().unwrap()), (None, None));
    assert_eq!((bare.max_tokens().unwrap(), bare.max_cost().unwrap()), (None, None));
    assert_eq!((bare.timeout().unwrap(), bare.verify_timeout().unwrap()), (None, None));
    assert_eq!((bare.verify().unwrap(), bare.permissions().unwrap()), (Vec::new(), Permissions::Edit));
    assert_eq!((bare.jobs().unwrap(), bare.max_subgoals().unwrap(), bare.patience().unwrap()), (4, 32, 5));
    assert_eq!(bare.preferences().unwrap(), Preferences::default());
    assert!(!bare.allow_nested().unwrap());
    assert_eq!((bare.prompts().unwrap(), bare.review_bytes().unwrap()), (None, 65536));
    assert!(bare.entries().iter().all(|entry| entry.origin == Origin::Default));
}

#[test]
fn the_environment_outdoes_the_configuration_which_outdoes_the_default() {
    let config = ["agentloop.jobs=2", "agentloop.jobs=3", "agentloop.patience=0"];
    let set = settings(&config, &["AGENTLOOP_JOBS=7", "AGENTLOOP_PATIENCE="]);
    assert_eq!((set.jobs().unwrap(), set.patience().unwrap(), set.max_iterations().unwrap()), (7, 0, 4));
    let origins: Vec<Origin> = ["agentloop.jobs", "agentloop.patience", "agentloop.maxIterations"]
        .iter()
        .map(|key| set.entries().iter().find(|entry| entry.key == *key).unwrap().origin)
        .collect();
    assert_eq!(origins, [Origin::Environment, Origin::Config, Origin::Default]);
    assert_eq!(settings(&config, &[]).jobs().unwrap(), 3);
    let spent = settings(&["agentloop.maxTokens=100000"], &["AGENTLOOP_MAX_COST=2.5"]);
    assert_eq!((spent.max_tokens().unwrap(), spent.max_cost().unwrap()), (Some(100_000), Some(2.5)));
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
    assert_eq!(settings(&["agentloop.setupTimeout=90"], &[]).setup_timeout().unwrap(), Some(90.0));
}

#[test]
fn an_error_names_the_place_of_the_bad_value() {
    let config = settings(&["agentloop.maxIterations=0"], &[]).max_iterations().unwrap_err();
    let said = config.report();
    assert!(said.starts_with("error: 'git config agentloop.maxIterations' cannot be used: '0' is not"), "{said}");
    assert!(said.contains("\nhint: 'git config --unset-all agentloop.maxIterations' takes it away"), "{said}");
    for (variable, value) in [
        ("AGENTLOOP_TIMEOUT", "-1"),
        ("AGENTLOOP_TIMEOUT", "inf"),
        ("AGENTLOOP_TIMEOUT", "NaN"),
        ("AGENTLOOP_TIMEOUT", "1e300"),
        ("AGENTLOOP_PERMISSIONS", "some"),
        ("AGENTLOOP_VERIFY", "open 'quote"),
        ("AGENTLOOP_SIGN", "maybe"),
        ("AGENTLOOP_CLEANUP", "sometimes"),
        ("AGENTLOOP_DURABLE", "surely"),
    ] {
        let set = settings(&[], &[&format!("{variable}={value}")]);
        let errors = [set.timeout().err(), set.permissions().err(), set.verify().err(), set.preferences().err()];
        let errors: Vec<String> = errors.into_iter().flatten().map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1, "{variable}={value}");
        assert!(errors[0].contains(variable) && errors[0].contains(value), "{}", errors[0]);
    }
}

#[test]
fn a_home_relative_path_is_below_home() {
    let set = settings(&["agentloop.worktreeDir=~/trees", "agentloop.prompts=/no/such/folder"], &["HOME=/home/x"]);
    assert_eq!(set.preferences().unwrap().worktree_dir, Some(PathBuf::from("/home/x/trees")));
    assert!(set.prompts().unwrap_err().to_string().contains("no such folder"));
}

#[test]
fn names_are_what_their_key_makes_of_them() {
    for key in KEYS {
        assert_eq!(key.env, format!("AGENTLOOP_{}", key.name.to_ascii_uppercase().replace('-', "_")));
        let config = key.config.strip_prefix("agentloop.").unwrap().to_ascii_lowercase();
        assert_eq!(config, key.name.replace('-', ""), "{}", key.config);
        assert!(key.meaning.len() <= 80, "{}", key.meaning);
    }
}
