//! `bisect`.

use super::args::BisectArgs;
use super::driving::{stop_on_signals, with_runtime};
use super::say::say;
use super::{print, render};
use crate::app::{self, Bisected, Site, Tried};
use crate::error::{Error, Result};

use tokio_util::sync::CancellationToken;

/// Prints which iteration broke a check. Exits with 1 if none did.
pub fn bisect(site: &Site, arguments: &BisectArgs) -> Result<u8> {
    let set = site.settings().verify()?;
    let Some(check) = arguments.verify.clone().or_else(|| set.into_iter().next()) else {
        let run = arguments.run.as_deref().unwrap_or("@");
        return Err(Error::usage("there is no check to search with")
            .hint(format!("name one: git agentloop bisect {run} --verify \"cargo test\"")));
    };
    let timeout = site.settings().verify_timeout()?;
    let cancel = CancellationToken::new();
    let tell = |tried: &Tried| print::note(&line(tried));
    let found = with_runtime(async {
        stop_on_signals(cancel.clone(), |_| {}, || {})?;
        app::bisect(site, arguments.run.as_deref(), &check, timeout, cancel, tell).await
    })?;
    say(arguments.json, &found, || Ok(text(&found)))?;
    Ok(u8::from(found.broken_by.is_none()))
}

fn line(tried: &Tried) -> String {
    let what = match tried.ok {
        Some(true) => "passes",
        Some(false) => "fails",
        None => "cannot be judged",
    };
    format!("{} {what} ({})", name(tried), render::span(tried.seconds))
}

fn name(tried: &Tried) -> String {
    let commit = tried.commit.get(..12).unwrap_or(&tried.commit);
    if tried.iteration == 0 {
        format!("the start, {commit},")
    } else {
        format!("iteration {}, {commit},", tried.iteration)
    }
}

fn text(found: &Bisected) -> String {
    match (&found.broken_by, &found.last_good) {
        (Some(bad), Some(good)) => format!(
            "iteration {} broke it: {}\nlook:  git agentloop diff {} --iteration {}\nagain: git agentloop fork {}@{}\n",
            bad.iteration, bad.commit, found.run_id, bad.iteration, found.run_id, good.iteration
        ),
        (None, Some(_)) => "no iteration broke it: the newest commit passes\n".to_owned(),
        _ => "no iteration broke it: it fails where the run started\n".to_owned(),
    }
}
