//! The common part of prompts: the goal and its context, in sections of bounded length.

use std::fmt::Write as _;

use crate::run::event::clip;

/// Longest goal in a prompt, and longest diff in a review, in bytes.
pub(super) const LONG: usize = 256 << 10;
/// Longest text of workers' reports, of criteria, of clarifications and of feedback, in bytes.
pub(super) const MIDDLE: usize = 64 << 10;
/// Longest output of a check, list of subgoals or error, in bytes.
pub(super) const SHORT: usize = 8 << 10;

/// The beginning of every prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brief<'a> {
    /// The goal.
    pub goal: &'a str,
    /// The success criteria; empty where there are none yet.
    pub criteria: &'a str,
    /// Questions and their answers.
    pub clarifications: &'a [(String, String)],
    /// The iteration, 0 during intake.
    pub iteration: u32,
    /// How many iterations there may be.
    pub max_iterations: u32,
    /// Work that the last iteration left; empty in the first.
    pub feedback: &'a str,
    /// True if `npx playwright test` is one of the checks.
    pub playwright: bool,
}

impl Brief<'_> {
    /// The goal and all that belongs to it, a section each.
    pub(super) fn goal(&self) -> String {
        let mut text = section("goal", self.goal, LONG);
        if !self.criteria.trim().is_empty() {
            text.push_str(&section("criteria", self.criteria, MIDDLE));
        }
        if !self.clarifications.is_empty() {
            let mut answers = String::new();
            for (question, answer) in self.clarifications {
                let _ = writeln!(answers, "Q: {}\nA: {}", question.trim(), answer.trim());
            }
            text.push_str(&section("clarifications", &answers, MIDDLE));
        }
        text
    }

    pub(super) fn feedback(&self) -> String {
        if self.feedback.trim().is_empty() {
            return String::new();
        }
        format!("What the last iteration left to do:\n\n{}", section("feedback", self.feedback, MIDDLE))
    }

    pub(super) fn round(&self) -> String {
        format!("This is iteration {} of at most {}.\n\n", self.iteration, self.max_iterations)
    }
}

/// `text` between tags that do not occur in it, and a blank line.
pub(super) fn section(name: &str, text: &str, limit: usize) -> String {
    let text = clip(text.trim(), limit);
    let mut tag = name.to_owned();
    let mut number = 1_u64;
    while text.contains(&format!("{tag}>")) {
        number *= 2; // doubled, so that a text with every tag in it cannot make this long
        tag = format!("{name}-{number}");
    }
    format!("<{tag}>\n{text}\n</{tag}>\n\n")
}
