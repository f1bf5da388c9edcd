//! Verbs that can wait for more: `tail -f`, `result --wait`, `output -f`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Instant;

use super::args::{OutputArgs, ResultArgs, TailArgs};
use super::display::{Display, Lines, Mode};
use super::say::{TIMED_OUT, page, say, say_result, warn_of_set_aside};
use super::transcript::Rendering;
use super::{paint, print, render};
use crate::app::{self, LOOK, Site, Watcher};
use crate::engine::Watch as _;
use crate::error::{Error, Result};
use crate::run::sanitize;
use crate::run::{Run, State};

/// Number of looks at a transcript after which the run's status is read again.
const ASK_EVERY: u32 = 10;

/// Prints the events of a run, and with `-f` new ones as they come.
pub fn tail(site: &Site, arguments: &TailArgs) -> Result<u8> {
    let limit = arguments.limit.unwrap_or(usize::MAX);
    if !arguments.follow {
        return so_far(site, arguments, limit);
    }
    let id = app::status(site, arguments.run.as_deref())?.run_id.to_string();
    let display = Display::new(Mode::for_tail(), true);
    if !arguments.json {
        warn_of_set_aside(app::set_aside(site, Some(&id))?.as_deref());
    }
    let mut run = Run::default();
    let (mut cursor, mut shown) = (0, 0);
    let mut watcher = Watcher::new(site, &app::resolve(site, &id)?);
    loop {
        // A status reads only one commit; events are read if there are new ones.
        let status = app::status(site, Some(&id))?;
        let ended = !status.running;
        if status.events > cursor || ended {
            let page = app::tail(site, Some(&id), cursor, usize::MAX)?;
            for entry in &page.events {
                let event = &entry.event;
                run.apply(event);
                if event.seq <= arguments.cursor {
                    continue;
                }
                let heard = if arguments.json {
                    print::out(sanitize::json(entry.to_line()) + "\n")?
                } else {
                    display.event(&run, event);
                    display.is_heard()
                };
                shown += 1;
                if !heard || shown == limit {
                    display.close();
                    return Ok(0);
                }
            }
            cursor = page.cursor;
        }
        if ended {
            display.close();
            if status.state == State::Interrupted {
                print::note(&format!("{id} has no driver any more; 'git agentloop resume {id}' goes on"));
            }
            return Ok(0);
        }
        while !watcher.moved(site) {
            std::thread::sleep(LOOK);
        }
    }
}

/// Prints the events so far.
fn so_far(site: &Site, arguments: &TailArgs, limit: usize) -> Result<u8> {
    let run = arguments.run.as_deref();
    if arguments.json {
        return say(true, &app::tail(site, run, arguments.cursor, limit)?, || Ok(String::new()));
    }
    let whole = app::tail(site, run, 0, usize::MAX)?;
    warn_of_set_aside(whole.set_aside.as_deref());
    let (mut run, events) = (Run::default(), whole.events);
    let (mut lines, mut text, mut shown) = (Lines::new(true, false), String::new(), 0);
    for entry in &events {
        let event = &entry.event;
        run.apply(event);
        if event.seq > arguments.cursor && shown < limit {
            shown += 1;
            text.extend(lines.of(&run, event).0.map(|line| line + "\n"));
        }
    }
    page(&paint::out(text)).map(|()| 0)
}

/// Prints the result of a run, and with `--wait` waits for it.
pub fn result(site: &Site, arguments: &ResultArgs) -> Result<u8> {
    if !arguments.wait {
        return say_result(&app::result(site, arguments.run.as_deref())?, arguments.json);
    }
    let id = app::status(site, arguments.run.as_deref())?.run_id.to_string();
    let deadline = arguments.timeout.map(|timeout| (timeout.get(), Instant::now() + timeout.duration()));
    let mut watcher = Watcher::new(site, &app::resolve(site, &id)?);
    let mut running = app::status(site, Some(&id))?.running;
    while running {
        if let Some((seconds, _)) = deadline.filter(|(_, deadline)| Instant::now() >= *deadline) {
            say_result(&app::result(site, Some(&id))?, arguments.json)?;
            print::note(&format!("error: {id} still runs after {}", render::span(seconds)));
            print::note(&format!("hint: 'git agentloop tail -f {id}' shows what it does"));
            return Ok(TIMED_OUT);
        }
        std::thread::sleep(LOOK);
        if watcher.moved(site) {
            running = app::status(site, Some(&id))?.running;
        }
    }
    say_result(&app::result(site, Some(&id))?, arguments.json)
}

/// Prints a transcript, or the list of them.
pub fn output(site: &Site, arguments: &OutputArgs) -> Result<u8> {
    let (run, which) = match (arguments.run.as_deref(), arguments.which.as_deref()) {
        // A run's id has no slash, so this names a worker of the newest run.
        (Some(which), None) if which.starts_with("iter") && which.contains('/') => (None, Some(which)),
        (_, None) if arguments.follow => {
            return Err(Error::usage("-f follows one worker or check")
                .hint("name it after the run, like iter1/s1 or iter1/check1: 'git agentloop output' lists them"));
        }
        named => named,
    };
    let transcript = app::output(site, run, which)?;
    let person = print::person_reads();
    if arguments.json {
        let text = transcript.text.as_deref().map(String::from_utf8_lossy);
        let running = transcript.live.is_some();
        let view = serde_json::json!({ "paths": transcript.paths, "text": text, "running": running });
        return say(true, &view, || Ok(String::new()));
    }
    let Some(text) = transcript.text else {
        if transcript.paths.is_empty() {
            print::note("nothing has been printed yet");
        }
        let paths: Vec<String> = transcript.paths.iter().map(|path| sanitize::line(path) + "\n").collect();
        return page(&paths.concat()).map(|()| 0);
    };
    let mut shown =
        Shown::new(arguments.raw, transcript.paths.first().is_some_and(|path| path.matches('/').count() == 1));
    if person && !arguments.follow && !arguments.raw {
        return page(&paint::out(shown.text(&text) + &shown.rest())).map(|()| 0);
    }
    let mut live = transcript.live.filter(|_| arguments.follow);
    let mut offset = text.len();
    let mut heard = shown.print(&text)?;
    let mut looks = 0;
    while let Some(path) = live.as_deref().filter(|_| heard) {
        std::thread::sleep(LOOK);
        let more = read_from(path, offset);
        offset += more.len();
        heard = shown.print(&more)?;
        looks += 1;
        if looks % ASK_EVERY == 0 {
            let now = app::output(site, run, which)?;
            let running = app::status(site, run)?.running;
            live = now.live.filter(|_| running);
            if let (None, Some(rest)) = (&live, now.text.as_deref().and_then(|text| text.get(offset..))) {
                heard = shown.print(rest)?;
            }
        }
    }
    print::out(paint::out(shown.rest()))?;
    Ok(0)
}

/// Formats a transcript that is read in pieces.
enum Shown {
    /// The bytes unchanged.
    Raw,
    /// Text without escapes.
    Plain(Vec<u8>),
    /// Labelled parts of an agent's stream.
    Rendered(Rendering),
}

impl Shown {
    fn new(raw: bool, is_check: bool) -> Self {
        match (raw, is_check) {
            (true, _) => Self::Raw,
            // A check's output is not an agent's stream, even if it looks like one.
            (false, true) => Self::Plain(Vec::new()),
            (false, false) => Self::Rendered(Rendering::default()),
        }
    }

    /// Returns the text that `bytes` complete.
    fn text(&mut self, bytes: &[u8]) -> String {
        match self {
            Self::Raw => String::new(),
            Self::Plain(held) => {
                held.extend_from_slice(bytes);
                let complete = whole(held).len();
                let text = sanitize::lines(&String::from_utf8_lossy(&held[..complete])).into_owned();
                held.drain(..complete);
                text
            }
            Self::Rendered(rendering) => rendering.push(bytes),
        }
    }

    /// Returns the text that is still held back.
    fn rest(&mut self) -> String {
        match self {
            Self::Raw => String::new(),
            Self::Plain(held) => sanitize::lines(&String::from_utf8_lossy(held)).into_owned(),
            Self::Rendered(rendering) => rendering.finish(),
        }
    }

    fn print(&mut self, bytes: &[u8]) -> Result<bool> {
        match self {
            _ if bytes.is_empty() => Ok(true),
            Self::Raw => print::raw(bytes),
            shown => {
                let text = shown.text(bytes);
                if text.is_empty() { Ok(true) } else { print::out(paint::out(text)) }
            }
        }
    }
}

/// Reads a file from `offset`; returns nothing if it is gone.
fn read_from(path: &Path, offset: usize) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset as u64))?;
        let mut bytes = Vec::new();
        file.take(1024 * 1024).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

/// Returns `bytes` without an incomplete character at their end.
fn whole(bytes: &[u8]) -> &[u8] {
    let rest = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_begun = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    &bytes[..bytes.len() - if is_begun { rest.len() } else { 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_shown_once_it_is_there() {
        let text = "aé漢💥".as_bytes();
        for end in 0..=text.len() {
            let shown = whole(&text[..end]);
            assert!(std::str::from_utf8(shown).is_ok() && end - shown.len() < 4, "{end}");
        }
        // Bytes that cannot begin a character are not held back.
        assert_eq!(whole(b"a\xff"), b"a\xff");
        assert_eq!(whole(b"\xffa\xc3"), b"\xffa");
    }
}
