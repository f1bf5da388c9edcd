//! Draws the last lines on a terminal, which change in place: work in progress.
//!
//! The cursor rests at the start of the first of them. A terminal that is resized moves it together with that line, whether
//! or not it wraps long lines anew; clearing from the cursor on then removes all that was drawn, and nothing else.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::print::Stream;
use super::render::span;
use crate::run::sanitize::short;

/// Interval at which running times are redrawn.
const TICK: Duration = Duration::from_millis(200);
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];
/// Columns and rows of a terminal that does not report its size.
const USUAL: (usize, usize) = (80, 24);
/// Columns before a line's text.
const INDENT: usize = 11;

/// Lines that are drawn below what is printed.
#[derive(Debug)]
pub struct Live {
    stream: Stream,
    drawing: Arc<Mutex<Drawing>>,
}

#[derive(Debug, Default)]
struct Drawing {
    lines: Vec<Line>,
    is_ticking: bool,
    is_drawn: bool,
    frame: usize,
}

#[derive(Debug)]
struct Line {
    key: String,
    text: String,
    since: Instant,
}

impl Live {
    pub fn new(stream: Stream) -> Self {
        Self { stream, drawing: Arc::default() }
    }

    /// Shows `text` under `key`, with the time that has passed since it began `elapsed` ago. A line that has this key
    /// already keeps its position.
    pub fn begin(&self, key: &str, text: String, elapsed: Duration) {
        let mut drawing = self.drawing();
        let now = Instant::now();
        let line = Line { key: key.to_owned(), text, since: now.checked_sub(elapsed).unwrap_or(now) };
        match drawing.lines.iter_mut().find(|line| line.key == key) {
            Some(known) => *known = line,
            None => drawing.lines.push(line),
        }
        if !drawing.is_ticking {
            drawing.is_ticking = true;
            self.tick();
        }
    }

    pub fn end(&self, key: &str) {
        self.drawing().lines.retain(|line| line.key != key);
    }

    /// Removes all lines from the terminal.
    pub fn clear(&self) {
        let mut drawing = self.drawing();
        drawing.lines.clear();
        drawing.erase(self.stream);
    }

    /// Prints above the lines.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        let mut drawing = self.drawing();
        drawing.erase(self.stream);
        let printed = print();
        drawing.draw(self.stream);
        printed
    }

    /// Redraws the lines at intervals while there are any.
    fn tick(&self) {
        let (stream, drawing) = (self.stream, Arc::downgrade(&self.drawing));
        std::thread::spawn(move || {
            while let Some(drawing) = drawing.upgrade() {
                let mut drawing = drawing.lock().unwrap_or_else(PoisonError::into_inner);
                drawing.frame += 1;
                drawing.draw(stream);
                if drawing.lines.is_empty() {
                    drawing.is_ticking = false;
                    return;
                }
                drop(drawing);
                std::thread::sleep(TICK);
            }
        });
    }

    fn drawing(&self) -> MutexGuard<'_, Drawing> {
        self.drawing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drawing {
    fn draw(&mut self, stream: Stream) {
        if self.lines.is_empty() {
            return self.erase(stream);
        }
        let text = self.text(stream.size().unwrap_or(USUAL));
        stream.draw(&text);
        self.is_drawn = true;
    }

    fn erase(&mut self, stream: Stream) {
        if std::mem::take(&mut self.is_drawn) {
            stream.draw("\r\u{1b}[J");
        }
    }

    /// Returns the text that redraws the lines on a terminal of this size.
    fn text(&self, (columns, rows): (usize, usize)) -> String {
        // The row below the last line stays free: a terminal would scroll the first one away.
        let most = rows.saturating_sub(1).max(1);
        let shown = if self.lines.len() > most { most - 1 } else { self.lines.len() };
        let spinner = SPINNER[self.frame % SPINNER.len()];
        let width = columns.saturating_sub(INDENT + 1);
        let mut lines: Vec<String> = self.lines[..shown]
            .iter()
            .map(|line| {
                format!("  {spinner} {:>6} {}", span(line.since.elapsed().as_secs_f64()), short(&line.text, width))
            })
            .collect();
        if shown < self.lines.len() {
            lines.push(format!("  and {} more", self.lines.len() - shown));
        }
        // Without automatic wrapping, a wide character at the margin or a margin that has just moved makes no further row.
        let mut text = "\r\u{1b}[?7l".to_owned();
        text += &lines.iter().map(|line| format!("{line}\u{1b}[K")).collect::<Vec<_>>().join("\r\n");
        text += "\u{1b}[J\r";
        if lines.len() > 1 {
            let _ = write!(text, "\u{1b}[{}A", lines.len() - 1);
        }
        text + "\u{1b}[?7h"
    }
}
