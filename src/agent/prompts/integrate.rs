//! The integrator's prompt.

use std::fmt::Write as _;

use super::brief::{Brief, LONG, MIDDLE, SHORT, section};
use crate::run::event::clip;
use crate::run::work::Subgoal;

/// One side of a conflict.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side<'a> {
    /// The subgoals that its work served, or its commits with their messages.
    pub served: &'a [Subgoal],
    /// Its changes to the files that conflict.
    pub diff: &'a str,
}

/// The kinds of sides of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Workers of one iteration.
    Workers,
    /// A run's work and the branch that takes it.
    Branches,
}

/// A conflict to be resolved: `theirs` is merged, as `commit`, into `ours`.
#[derive(Clone, Copy, Debug)]
pub struct Conflict<'a> {
    /// The kinds of its sides.
    pub between: Between,
    /// The files that conflict.
    pub paths: &'a [String],
    /// The side that is there.
    pub ours: Side<'a>,
    /// The side that comes in.
    pub theirs: Side<'a>,
    /// The commit that comes in.
    pub commit: &'a str,
    /// Why the last try was no resolution.
    pub error: Option<&'a str>,
}

/// Asks for a conflict to be resolved.
#[must_use]
pub fn integrate(brief: &Brief<'_>, conflict: &Conflict<'_>) -> String {
    let Conflict { between, paths, ours, theirs, commit, error } = *conflict;
    let mut text = brief.goal();
    let (meeting, upper, lower) = match between {
        Between::Workers => (
            format!("{}Workers worked side by side, and git cannot merge what they did.", brief.round()),
            ("merged", "subgoals", "What is merged already (HEAD, the upper side of each conflict) served:"),
            ("merging", "subgoals", "What is being merged now (the lower side of each conflict) serves:"),
        ),
        Between::Branches => (
            "The goal was worked on apart from a branch that went on meanwhile, and git cannot merge the two."
                .to_owned(),
            (
                "branch",
                "commits",
                "HEAD, the upper side of each conflict, is the branch. Its commits since the two parted:",
            ),
            ("goal", "commits", "The lower side of each conflict is the work on the goal. Its commits:"),
        ),
    };
    let _ = write!(
        text,
        "{meeting} The current directory is a worktree in which the merge of the commit {commit} is under way \
         (`git status`): HEAD is what was merged so far. These files conflict:\n\n{}",
        section("files", &paths.join("\n"), SHORT),
    );
    for (side, (name, what, words)) in [(ours, upper), (theirs, lower)] {
        let mut served = String::new();
        for one in side.served {
            let _ = writeln!(served, "{}: {}", one.id, clip(&one.description, SHORT));
        }
        let _ = write!(text, "{words}\n\n{}", section(&format!("{name}-{what}"), &served, MIDDLE));
        let _ = write!(text, "It changed:\n\n{}", section(&format!("{name}-diff"), side.diff, LONG));
    }
    if let Some(error) = error {
        let _ = write!(text, "The try before this one was not taken:\n\n{}", section("error", error, SHORT));
    }
    text.push_str(
        "Resolve every conflict, leave no conflict marker in any file, then report what you kept of each side.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_told() {
        let served = |id: &str, words: &str| [Subgoal { id: id.parse().unwrap(), description: words.into() }];
        let (ours, theirs) = (served("1a2b", "rename quote()"), served("3c4d", "agentloop: iteration 1/4"));
        let paths = ["src/lib.rs".to_owned()];
        let brief = Brief { goal: "mend it", ..Brief::default() };
        let conflict = Conflict {
            between: Between::Branches,
            paths: &paths,
            ours: Side { served: &ours, diff: "+ours" },
            theirs: Side { served: &theirs, diff: "+theirs" },
            commit: "5e6f",
            error: Some("the check `true` fails"),
        };
        let text = integrate(&brief, &conflict);
        for words in [
            "<goal>\nmend it",
            "<files>\nsrc/lib.rs",
            "<branch-commits>\n1a2b: rename quote()",
            "<branch-diff>\n+ours",
            "<goal-commits>\n3c4d: agentloop: iteration 1/4",
            "<goal-diff>\n+theirs",
            "merge of the commit 5e6f",
            "the check `true` fails",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(!text.contains("iteration 0"), "{text}");
        let round = Brief { iteration: 2, max_iterations: 4, ..brief };
        let text = integrate(&round, &Conflict { between: Between::Workers, error: None, ..conflict });
        assert!(
            text.contains("iteration 2 of at most 4") && text.contains("<merged-diff>") && text.contains("Workers")
        );
    }
}
