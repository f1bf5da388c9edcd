//! Kinds of values, and how they are read from the texts of a flag, a variable, a key or an argument.

use std::num::NonZeroU64;
use std::str::FromStr;

use super::command;
use super::wrong::Wrong;
use crate::ledger::{Cleanup, Durability, Home, Output};
use crate::run::amount::{Count, Dollars, Seconds};
use crate::run::goal::{AgentChoice, Check, Isolation, Permissions};

/// The kind of an option's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Flag,
    /// A whole number.
    Count {
        /// Least value.
        least: u64,
        /// Greatest value.
        most: u64,
    },
    /// A duration above 0.
    Seconds,
    /// An amount of money above 0.
    Dollars,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A backend, perhaps with its model.
    Agent,
    /// A text.
    Text,
    /// Several texts.
    Texts,
    /// Several commands.
    Commands,
}

impl Kind {
    /// Returns whether an option of this kind may be given several times.
    #[must_use]
    pub fn is_several(self) -> bool {
        matches!(self, Self::Texts | Self::Commands)
    }
}

/// The type of an option's value.
pub trait Value: Sized {
    /// Kind of the value.
    const KIND: Kind;

    /// Parses a value from its texts; for an option with a single value, the last text counts.
    fn read(texts: &[String]) -> Result<Self, Wrong>;
}

fn last(texts: &[String]) -> &str {
    texts.last().map_or("", |text| text.trim())
}

/// Parses the last of `texts` with its type's `FromStr`, whose error is converted to the expected form.
fn parse<T: FromStr>(texts: &[String], expected: impl Fn(T::Err) -> String) -> Result<T, Wrong> {
    let text = last(texts);
    text.parse().map_err(|error| Wrong::new(text, expected(error)))
}

impl Value for bool {
    const KIND: Kind = Kind::Flag;

    /// Parses git's words for yes and no.
    fn read(texts: &[String]) -> Result<Self, Wrong> {
        let text = last(texts);
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(Wrong::new(text, "true or false")),
        }
    }
}

impl<const LEAST: u32, const MOST: u32> Value for Count<LEAST, MOST> {
    const KIND: Kind = Kind::Count { least: LEAST as u64, most: MOST as u64 };

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        parse(texts, |error: crate::run::amount::OutOfRange| error.0)
    }
}

impl Value for NonZeroU64 {
    const KIND: Kind = Kind::Count { least: 1, most: u64::MAX };

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        parse(texts, |_| format!("a whole number from 1 to {}", u64::MAX))
    }
}

impl Value for usize {
    const KIND: Kind = Kind::Count { least: 0, most: u32::MAX as u64 };

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        let number: u32 = parse(texts, |_| format!("a whole number from 0 to {}", u32::MAX))?;
        let number = Self::try_from(number);
        number.map_err(|_| Wrong::new(last(texts), "a number that this machine can count to"))
    }
}

impl Value for Seconds {
    const KIND: Kind = Kind::Seconds;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        let seconds: Self = parse(texts, |error: crate::run::amount::OutOfRange| error.0)?;
        if seconds.get() > 0.0 { Ok(seconds) } else { Err(Wrong::new(last(texts), "a duration above 0")) }
    }
}

impl Value for Dollars {
    const KIND: Kind = Kind::Dollars;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        let expected = || Wrong::new(last(texts), "an amount above 0 and at most 1000000000");
        let dollars: Self = last(texts).parse().map_err(|_| expected())?;
        if dollars.get() > 0.0 { Ok(dollars) } else { Err(expected()) }
    }
}

impl Value for AgentChoice {
    const KIND: Kind = Kind::Agent;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        parse(texts, |expected| expected)
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        match last(texts) {
            "" => Err(Wrong::new("", "a text")),
            text => Ok(text.to_owned()),
        }
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::Texts;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        Ok(texts.to_vec())
    }
}

impl Value for Vec<Check> {
    const KIND: Kind = Kind::Commands;

    fn read(texts: &[String]) -> Result<Self, Wrong> {
        texts.iter().map(|text| command::read(text)).collect()
    }
}

/// Implements [`Value`] for types whose values are words.
macro_rules! words {
    ($($type:ty: $($word:literal)*;)*) => {
        $(impl Value for $type {
            const KIND: Kind = Kind::Word(&[$($word),*]);

            fn read(texts: &[String]) -> Result<Self, Wrong> {
                parse(texts, |expected| expected)
            }
        })*
    };
}

words! {
    Permissions: "ask" "edit" "all";
    Isolation: "worktree" "shared" "none";
    Durability: "answers" "always" "never";
    Cleanup: "auto" "always" "never";
    Home: "shared" "private";
    Output: "redacted" "none";
}
