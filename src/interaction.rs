//! Seam 2: where the user answers.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;

/// Puts questions to the user.
pub trait Interaction: Send + Sync {
    /// The answers, one a question in order; `None` where nobody is there to answer now and the run is suspended.
    fn ask<'a>(&'a self, questions: &'a [String]) -> Answers<'a>;
}

/// What [`Interaction::ask`] returns.
pub type Answers<'a> = Pin<Box<dyn Future<Output = Result<Option<Vec<String>>>> + Send + 'a>>;

/// Suspends the run: the questions are on record, and whoever comes later answers them by the run's token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suspend;

impl Interaction for Suspend {
    fn ask<'a>(&'a self, _questions: &'a [String]) -> Answers<'a> {
        Box::pin(async { Ok(None) })
    }
}
