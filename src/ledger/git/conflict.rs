//! Conflicts: the worktree in which one is resolved, and the commit made of it.
//!
//! An integrator begins with the markers of a merge, or with the commit of an integrator that ended by itself. It never
//! continues files of one that was killed: a truncated file has lost its markers and one side of the conflict.

use std::path::Path;

use gix::ObjectId;

use super::folder::remove_any;
use super::preview::{self, TrialMerge};
use super::repository::Repository;
use super::slots::{Claim, TakenSlot};
use super::worktree::Worktree;
use super::{GitLedger, branch, command, protect};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Merging, Place, Provision as _, Resolution, Resolving, Task};
use crate::run::message::RUN_TRAILER;
use crate::run::shadow;

/// Suffix of the task that resolves a conflict: no subgoal's id contains a dot.
const CONFLICT: &str = ".merge";

impl GitLedger {
    /// Opens a worktree in which the merge is under way.
    pub(super) fn open_conflict_worktree(&self, task: &Task, merging: &Merging<'_>) -> Result<Place> {
        let task = conflict(task);
        let is_this = |claim: &Claim, place: &Worktree| {
            Ok(self.is_integrated(&claim.tip, merging) && self.is_committed(place, Repository::id(merging.commit)?)?)
        };
        let opened = self.open_slot(&task, is_this, |place, holds| {
            let ours = self.integrated(merging)?.to_string();
            self.clear(place, holds, &ours)?;
            // The integrator must not read ignored files that a worker left.
            self.strip(place)?;
            // Labels that no file contains by chance, and the common ancestor between the two sides.
            let git = self.git_at(place, "merge")?.setting("merge.conflictStyle", "zdiff3").arg("--no-commit");
            let output = git.args(["--no-ff", "-q"]).id(Repository::id(merging.commit)?).output()?;
            if !matches!(output.status.code(), Some(0 | 1)) {
                let stderr = String::from_utf8_lossy(&output.stderr);
                return Err(command::failure("git merge", output.status, &stderr));
            }
            Ok(Claim { task: task.clone(), tip: ours })
        })?;
        self.show_base_agent_files(&opened.path, self.integrated(merging)?, Repository::id(merging.commit)?)?;
        Ok(opened)
    }

    /// Restores files that configure agents to the base's version, so that workers' changes to them do not instruct the
    /// integrator.
    fn show_base_agent_files(&self, place: &Path, ours: ObjectId, theirs: ObjectId) -> Result<()> {
        let Some(AgentFiles { base, paths, .. }) = self.changed_agent_files(ours, theirs)? else { return Ok(()) };
        for path in &paths {
            let file = place.join(path);
            remove_any(&file).context(format!("'{}' cannot be removed", file.display()))?;
            let folders = file.ancestors().skip(1).take_while(|folder| *folder != place);
            let _ = folders.map(std::fs::remove_dir).all(|removed| removed.is_ok()); // up to the first that is not empty
        }
        let held = protect::among(&self.repo, &base, &paths)?;
        if held.is_empty() {
            return Ok(());
        }
        let git = self.git_at(place, "restore")?.env("GIT_LITERAL_PATHSPECS", "1").args(["--worktree", "--source"]);
        git.arg(base).paths(held).run().map(|_| ())
    }

    /// Returns `tree` of an integrator, with the files that configure agents as the merge has them instead of the base's
    /// version.
    pub(super) fn with_merged_agent_files(&self, tree: ObjectId, ours: ObjectId, theirs: ObjectId) -> Result<ObjectId> {
        match self.changed_agent_files(ours, theirs)? {
            Some(found) => {
                Repository::id(&protect::without(&self.repo, &found.merged, &tree.to_string(), &found.paths)?)
            }
            None => Ok(tree),
        }
    }

    /// Finds the files that configure agents and that a merge changes without a conflict in them.
    fn changed_agent_files(&self, ours: ObjectId, theirs: ObjectId) -> Result<Option<AgentFiles>> {
        let Some(base) = branch::base_tree(&self.repo.gix(), &self.tip().commit, &self.run)? else { return Ok(None) };
        let TrialMerge { tree: merged, conflicts } =
            preview::try_merge(&self.repo, &ours.to_string(), &theirs.to_string())?;
        let mut paths = protect::changed(&self.repo, &base, &merged, &["*".to_owned()])?;
        paths.retain(|path| shadow::configures_agents(path) && !conflicts.contains(path));
        Ok((!paths.is_empty()).then_some(AgentFiles { base, merged, paths }))
    }

    /// Commits the resolution of the conflict and checks it.
    pub(super) fn commit_resolution(&self, resolving: &Resolving<'_>) -> Result<Resolution> {
        let task = conflict(resolving.task);
        let Some(TakenSlot { number, claim: Some(claim) }) = self.slots.of(&task) else {
            return Err(Error::failed(format!("nobody works at {task}")));
        };
        let gix = self.repo.gix();
        let (ours, theirs) = (Repository::id(&claim.tip)?, Repository::id(resolving.merging.commit)?);
        let left = self.commit_work(number, &claim, resolving.message, Some(theirs))?;
        let commit = left.commit.as_deref().map_or(Ok(ours), Repository::id)?;
        let tree = branch::tree_of(&gix, commit)?;
        let (marked, one_sided) = self.check_resolution(tree, [ours, theirs], resolving.paths)?;
        let is_none = tree == branch::tree_of(&gix, ours)?;
        let goes_on = resolving.ended && left.lost.is_none() && !is_none && !marked.is_empty();
        let open = match left.lost {
            Some(lost) => Some(lost),
            None if is_none => {
                Some("nothing of the work that was to be merged is in what the integrator left".to_owned())
            }
            None => (!marked.is_empty()).then(|| format!("conflict markers are left in {}", marked.join(", "))),
        };
        if !goes_on {
            // Kept like other work, but no later integrator begins with it.
            self.slots.claim(number, Some(Claim { tip: commit.to_string(), ..claim }))?;
        }
        self.slots.leave(number, goes_on);
        let remarks = left.remarks.into_iter().chain(one_sided).collect();
        Ok(Resolution { commit: commit.to_string(), tree: tree.to_string(), open, remarks })
    }

    /// Reports whether the worktree has no edits and a HEAD that contains `theirs`.
    fn is_committed(&self, place: &Worktree, theirs: ObjectId) -> Result<bool> {
        let gix = self.repo.gix();
        let Some(head) = place.head(&gix).filter(|head| branch::contains(&gix, *head, theirs)) else {
            return Ok(false);
        };
        let tree = branch::tree_of(&gix, head)?.to_string();
        Ok(self.capture(&self.tracked_at(place), &tree)?.id == tree)
    }

    /// Returns a commit of everything integrated so far.
    pub(super) fn integrated(&self, merging: &Merging<'_>) -> Result<ObjectId> {
        let gix = self.repo.gix();
        let (tip, tree) = (Repository::id(merging.tip)?, Repository::id(merging.tree)?);
        if merging.merged.is_empty() && branch::tree_of(&gix, tip)? == tree {
            return Ok(tip);
        }
        let mut parents = vec![tip];
        for commit in merging.merged {
            parents.push(Repository::id(commit)?);
        }
        let message = format!("agentloop: what is merged so far\n\n{RUN_TRAILER}: {}\n", self.run);
        self.write_commit(&message, tree, &parents)
    }

    /// Reports whether `commit` is the one that [`GitLedger::integrated`] would make.
    fn is_integrated(&self, commit: &str, merging: &Merging<'_>) -> bool {
        let same = || -> Result<bool> {
            let gix = self.repo.gix();
            let id = Repository::id(commit)?;
            let is_tree = branch::tree_of(&gix, id)? == Repository::id(merging.tree)?;
            if commit == merging.tip {
                return Ok(is_tree && merging.merged.is_empty());
            }
            let found = gix.find_commit(id).context("a commit cannot be read")?;
            let parents: Vec<String> = found.parent_ids().map(|parent| parent.to_string()).collect();
            Ok(is_tree
                && parents
                    .iter()
                    .map(String::as_str)
                    .eq(std::iter::once(merging.tip).chain(merging.merged.iter().map(String::as_str))))
        };
        same().unwrap_or(false)
    }

    /// Returns those of `paths` that have conflict markers in `tree` which neither side has, and a remark for each that
    /// equals one side.
    fn check_resolution(
        &self,
        tree: ObjectId,
        sides: [ObjectId; 2],
        paths: &[String],
    ) -> Result<(Vec<String>, Vec<String>)> {
        let gix = self.repo.gix();
        let sides = [branch::tree_of(&gix, sides[0])?, branch::tree_of(&gix, sides[1])?];
        let entry = |tree: ObjectId, path: &str| {
            let tree = gix.find_tree(tree).context("a tree cannot be read")?;
            let entry = tree.lookup_entry_by_path(path).context("a tree cannot be read")?;
            Ok::<_, Error>(entry.map(|entry| (entry.mode(), entry.object_id())))
        };
        let is_marked = |tree: ObjectId, path: &str| -> Result<bool> {
            let Some((_, blob)) = entry(tree, path)?.filter(|(mode, _)| mode.is_blob()) else { return Ok(false) };
            let blob = gix.find_object(blob).context("a file cannot be read")?;
            Ok(blob.data.split(|byte| *byte == b'\n').any(|line| {
                line.starts_with(b"<<<<<<< ") || line.starts_with(b">>>>>>> ") || line.starts_with(b"||||||| ")
            }))
        };
        let (mut marked, mut one_sided) = (Vec::new(), Vec::new());
        for path in paths {
            if is_marked(tree, path)? && !is_marked(sides[0], path)? && !is_marked(sides[1], path)? {
                marked.push(path.clone());
            }
            // This may be intended, and is reported in the record.
            let [here, ours, theirs] = [entry(tree, path)?, entry(sides[0], path)?, entry(sides[1], path)?];
            if here == ours {
                one_sided
                    .push(format!("'{path}' is as it was before the merge: nothing of what came in was kept in it"));
            } else if here == theirs {
                one_sided.push(format!("'{path}' is as it came in: nothing of what was there before was kept in it"));
            }
        }
        Ok((marked, one_sided))
    }
}

/// Files that configure agents, with the tree that an integrator sees and the merged one.
struct AgentFiles {
    base: String,
    merged: String,
    paths: Vec<String>,
}

fn conflict(task: &Task) -> Task {
    Task { iteration: task.iteration, subgoal: format!("{}{CONFLICT}", task.subgoal) }
}
