//! Seam 2: questions to the user.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;

/// Puts questions to the user.
pub trait Interaction: Send + Sync {
    /// Returns the answers, one a question in order, or `None` if no user can answer now and the run is suspended.
    fn ask<'a>(&'a self, questions: &'a [String]) -> Answers<'a>;
}

/// Future that [`Interaction::ask`] returns.
pub type Answers<'a> = Pin<Box<dyn Future<Output = Result<Option<Vec<String>>>> + Send + 'a>>;

/// Suspends the run: the questions are recorded, and a user answers them later with the run's token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suspend;

impl Interaction for Suspend {
    fn ask<'a>(&'a self, _questions: &'a [String]) -> Answers<'a> {
        Box::pin(async { Ok(None) })
    }
}
