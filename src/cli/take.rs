//! Verbs that merge, discard and prune runs.

use std::fmt::Write as _;

use tokio_util::sync::CancellationToken;

use super::args::{DiscardArgs, MergeArgs, PruneArgs};
use super::driving::{stop_on_signals, with_runtime};
use super::say::{ERROR, say};
use super::{print, render};
use crate::app::{self, Merge, Prunable, Removal, Site, Way};
use crate::error::{Error, Result};
use crate::run::sanitize;

/// Merges a run's work into the user's branch and exits with git's code.
pub fn merge(site: &Site, arguments: &MergeArgs) -> Result<u8> {
    let way = match arguments {
        MergeArgs { ff: true, .. } => Way::FastForward,
        MergeArgs { squash: true, .. } => Way::Squash,
        MergeArgs { rebase: true, .. } => Way::Rebase,
        _ => Way::Merge,
    };
    if arguments.with_agent && way == Way::Rebase {
        let run = arguments.run.as_deref().map_or_else(String::new, |run| format!(" {run}"));
        return Err(Error::usage("an agent resolves one merge, and a rebase is one for every checkpoint").hint(
            format!("'git agentloop merge{run} --squash --with-agent' takes the run as one commit, without a merge"),
        ));
    }
    // As git merge does (git-merge(1), GIT_MERGE_AUTOEDIT).
    let auto =
        std::env::var("GIT_MERGE_AUTOEDIT").map_or(true, |value| !matches!(value.as_str(), "no" | "false" | "0"));
    let person = print::person_answers() && print::person_reads();
    let edit = arguments.edit || (person && auto && !arguments.no_edit);
    let run = arguments.run.as_deref();
    let mut force = arguments.force;
    if !force
        && person
        && let Some(why) = app::unfit(site, run)?
    {
        print::note(&format!("it is not ready to merge: {why}"));
        force = print::person_agrees("merge it all the same?");
        if !force {
            print::note("nothing was done");
            return Ok(ERROR);
        }
    }
    let how = Merge { way, edit, force };
    let tell = |line: &str| print::note(line);
    let (_, code) = if arguments.with_agent {
        let (cancel, integrator) = (CancellationToken::new(), arguments.integrator.clone());
        with_runtime(async {
            stop_on_signals(cancel.clone(), |_| print::note("stopping: your checkout stays as it is"), || {})?;
            app::merge_with_agent(site, run, how, integrator, cancel, tell).await
        })?
    } else {
        app::merge(site, run, how, tell)?
    };
    Ok(u8::try_from(code).unwrap_or(ERROR))
}

/// Removes a run from the repository after the user has confirmed it.
pub fn discard(site: &Site, arguments: &DiscardArgs) -> Result<u8> {
    let status = app::status(site, arguments.run.as_deref())?;
    let id = status.run_id;
    if !arguments.yes {
        if !print::person_answers() {
            return Err(Error::usage(format!("'{id}' would be taken out of the repository"))
                .hint(format!("say so: git agentloop discard {id} --yes")));
        }
        print::note(&format!("{id}: {}", sanitize::short(&status.goal, 60)));
        if !print::person_agrees("discard its branch, worktree and record?") {
            print::note("nothing was done");
            return Ok(1);
        }
    }
    let removal = with_runtime(app::discard(site, id.as_str()))?;
    say(arguments.json, &removal, || Ok(removed(&removal)))
}

/// Removes worktrees and branches of merged runs, or lists them.
pub fn prune(site: &Site, arguments: &PruneArgs) -> Result<u8> {
    let (found, failed) = with_runtime(app::prune(site, arguments.older_than.get(), arguments.yes))?;
    if failed.is_none() || !found.is_empty() {
        say(arguments.json, &found, || Ok(pruned(&found, arguments.older_than.get())))?;
    }
    failed.map_or(Ok(0), Err)
}

fn removed(removal: &Removal) -> String {
    let mut text = format!("removed {}\n", removal.run_id);
    for path in &removal.worktrees {
        let _ = writeln!(text, "  worktree {}", sanitize::line(path));
    }
    for name in &removal.refs {
        let _ = writeln!(text, "  {name}");
    }
    if let Some(path) = &removal.folder {
        let _ = writeln!(text, "  folder {}", sanitize::line(path));
    }
    for kept in &removal.kept {
        let _ = writeln!(text, "kept: {kept}");
    }
    if let Some(undo) = &removal.undo {
        let _ = writeln!(text, "undo: {undo}");
    }
    text
}

fn pruned(found: &[Prunable], idle: f64) -> String {
    if found.is_empty() {
        let idle = if idle > 0.0 {
            format!("no merged run has been idle for {}", render::span(idle))
        } else {
            "no run is merged".to_owned()
        };
        return format!("nothing to prune: {idle}\n");
    }
    let mut text = String::new();
    for one in found {
        if let Some(removal) = &one.removal {
            text += &removed(removal);
            continue;
        }
        let _ = writeln!(text, "would remove {}", one.run_id);
        let worktrees = one.worktrees.iter().map(|path| format!("worktree {}", sanitize::line(path)));
        let folder = one.folder.iter().map(|path| format!("folder {}", sanitize::line(path)));
        for what in worktrees.chain(one.refs.clone()).chain(folder).chain(one.submodules.clone()) {
            let _ = writeln!(text, "  {what}");
        }
    }
    if found.iter().any(|one| one.removal.is_none()) {
        let _ = writeln!(text, "'git agentloop prune --older-than {idle}s --yes' removes them");
    }
    text
}
