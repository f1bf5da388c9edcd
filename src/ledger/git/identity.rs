//! Author and committer of a run's commits.

use std::process::Command;

use gix::bstr::ByteSlice as _;

const FALLBACK_NAME: &str = "git-agentloop";
const FALLBACK_EMAIL: &str = "agentloop@localhost";

/// Author and committer of a run's commits.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) author: (String, String),
    pub(super) committer: (String, String),
    /// True if git knows no author and ours is used.
    pub is_fallback: bool,
}

impl Identity {
    /// Reads the user's name and mail address as git knows them, or ours if git knows none.
    pub(super) fn of(gix: &gix::Repository) -> Self {
        let person = |found: Option<std::result::Result<gix::actor::SignatureRef<'_>, _>>| {
            let found = found?.ok()?;
            let known = !found.name.trim().is_empty() && !found.email.trim().is_empty();
            known.then(|| (found.name.to_str_lossy().trim().to_owned(), found.email.to_str_lossy().trim().to_owned()))
        };
        let fallback = || (FALLBACK_NAME.to_owned(), FALLBACK_EMAIL.to_owned());
        let (author, committer) = (person(gix.author()), person(gix.committer()));
        Self {
            is_fallback: author.is_none(),
            author: author.unwrap_or_else(fallback),
            committer: committer.unwrap_or_else(fallback),
        }
    }

    /// Sets author and committer for a git process.
    pub(super) fn apply_to(&self, git: &mut Command) {
        let (name, email) = &self.committer;
        git.env("GIT_COMMITTER_NAME", name).env("GIT_COMMITTER_EMAIL", email);
        let (name, email) = &self.author;
        git.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", email);
    }

    pub(super) fn author_now(&self) -> gix::actor::Signature {
        signature(&self.author)
    }

    pub(super) fn committer_now(&self) -> gix::actor::Signature {
        signature(&self.committer)
    }
}

fn signature((name, email): &(String, String)) -> gix::actor::Signature {
    gix::actor::Signature {
        name: name.as_str().into(),
        email: email.as_str().into(),
        time: gix::date::Time::now_local_or_utc(),
    }
}
