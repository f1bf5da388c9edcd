//! The flags of the table of options.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::value::unmarked;
use crate::options::{Changes, Entry, Flag, Kind, TABLE, When, Wrong};

/// The flags of options: all of them for a new run, else those that can change later.
#[derive(Clone, Debug, Default)]
pub struct Flags<const START: bool> {
    /// The options that were given.
    pub changes: Changes,
}

/// Lists the entries of the table that have a flag.
fn flags(start: bool) -> impl Iterator<Item = (&'static Entry, Flag)> {
    let taken = TABLE.iter().filter(move |entry| start || entry.changes != When::Start);
    taken.filter_map(|entry| Some((entry, entry.flag?)))
}

fn argument(entry: &'static Entry, flag: Flag) -> Arg {
    let argument = headed(Arg::new(entry.name).long(entry.name).help(flag.help), flag);
    if entry.kind == Kind::Flag {
        return argument.action(ArgAction::SetTrue);
    }
    let action = if entry.kind.is_several() { ArgAction::Append } else { ArgAction::Set };
    let read = |text: &str| {
        let text = unmarked(text).to_owned();
        (entry.check)(std::slice::from_ref(&text)).map(|()| text)
    };
    argument.action(action).value_name(flag.value).value_parser(read)
}

fn headed(argument: Arg, flag: Flag) -> Arg {
    if flag.heading.is_empty() { argument } else { argument.help_heading(flag.heading) }
}

/// Returns the values of an entry in `matches`; `None` if it is not given.
fn given(entry: &Entry, flag: Flag, matches: &ArgMatches) -> Option<Vec<String>> {
    if let Some(switch) = flag.switch.filter(|switch| matches.get_flag(switch.name)) {
        return Some(vec![switch.value.to_owned()]);
    }
    if entry.kind == Kind::Flag {
        return matches.get_flag(entry.name).then(|| vec!["true".to_owned()]);
    }
    Some(matches.get_many(entry.name)?.cloned().collect())
}

impl<const START: bool> Args for Flags<START> {
    fn augment_args(command: Command) -> Command {
        flags(START).fold(command, |command, (entry, flag)| {
            let command = command.arg(argument(entry, flag));
            match flag.switch {
                None => command,
                Some(switch) => command.arg(
                    headed(Arg::new(switch.name).long(switch.name).help(switch.help), flag)
                        .action(ArgAction::SetTrue)
                        .conflicts_with(entry.name),
                ),
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const START: bool> FromArgMatches for Flags<START> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut changes = Changes::default();
        let wrong = |wrong: Wrong| clap::Error::raw(clap::error::ErrorKind::ValueValidation, wrong);
        for (entry, flag) in flags(START) {
            if let Some(texts) = given(entry, flag, matches) {
                changes.set(entry.id, &texts).map_err(wrong)?;
            }
        }
        Ok(Self { changes })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
