//! Times, pairs of times, and the row that says what they come to.

use std::time::{Duration, Instant};

/// Measured durations, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    pub fn p50(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    pub fn p99(&self) -> Duration {
        self.0[(self.0.len() * 99 / 100).min(self.0.len() - 1)]
    }
}

/// How long each of `count` calls takes; one before them warms up.
pub fn times(count: usize, mut work: impl FnMut()) -> Times {
    work();
    Times::of((0..count).map(|_| time(&mut work)).collect())
}

/// How long each of `count` calls takes, on both sides in turn, so that a busy moment hits both.
pub struct Pairs {
    pub ours: Times,
    pub floor: Times,
    /// The median of the pairs' ratios.
    pub ratio: f64,
}

pub fn pairs(count: usize, mut ours: impl FnMut(), mut floor: impl FnMut()) -> Pairs {
    ours();
    floor();
    Pairs::of((0..count).map(|_| (time(&mut ours), time(&mut floor))).collect())
}

impl Pairs {
    pub fn of(both: Vec<(Duration, Duration)>) -> Self {
        let mut ratios: Vec<f64> = both.iter().map(|(ours, floor)| ours.as_secs_f64() / floor.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let ratio = ratios[ratios.len() / 2];
        let (ours, floor) = both.into_iter().unzip();
        Self { ours: Times::of(ours), floor: Times::of(floor), ratio }
    }
}

/// How long one call takes.
pub fn time(work: &mut impl FnMut()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// What a figure is held against.
pub enum Aim {
    /// The median, at most this.
    Median(Duration),
    /// The 99th percentile, at most this.
    Tail(Duration),
    /// The median of the pairs' ratios, at most this.
    Ratio(f64),
    /// This many mebibytes at most.
    Mebibytes(f64),
    /// Printed beside the others, and held against nothing.
    None,
}

/// One figure.
pub struct Row {
    what: String,
    cells: [String; 4],
    aim: Aim,
    /// What was measured, in the aim's unit.
    measured: f64,
}

impl Row {
    /// A figure with a floor beside it.
    pub fn pairs(what: &str, pairs: &Pairs, aim: Aim) -> Self {
        let floor = milliseconds(pairs.floor.p50());
        let ratio = format!("{:.2}×", pairs.ratio);
        Self::new(what, &pairs.ours, [format!("{floor:.2} ms"), ratio], aim, pairs.ratio)
    }

    /// A figure that is held against the clock alone.
    pub fn times(what: &str, times: &Times, aim: Aim) -> Self {
        Self::new(what, times, [String::new(), String::new()], aim, 0.0)
    }

    /// A size.
    pub fn bytes(what: &str, bytes: u64, aim: Aim) -> Self {
        #[allow(clippy::cast_precision_loss)] // sizes of programs and processes
        let mebibytes = bytes as f64 / (1024.0 * 1024.0);
        let cells = [format!("{mebibytes:.1} MiB"), String::new(), String::new(), String::new()];
        Self { what: what.to_owned(), cells, aim, measured: mebibytes }
    }

    fn new(what: &str, ours: &Times, [floor, ratio]: [String; 2], aim: Aim, measured: f64) -> Self {
        let (p50, p99) = (milliseconds(ours.p50()), milliseconds(ours.p99()));
        let measured = match aim {
            Aim::Median(_) => p50,
            Aim::Tail(_) => p99,
            _ => measured,
        };
        let cells = [format!("{p50:.2} ms"), format!("{p99:.2} ms"), floor, ratio];
        Self { what: what.to_owned(), cells, aim, measured }
    }

    /// The aim and whether it is met, and by how much it is missed.
    fn verdict(&self) -> String {
        let (name, limit) = match self.aim {
            Aim::Median(time) if time < Duration::from_millis(1) => {
                (format!("{:.1} ms", milliseconds(time)), milliseconds(time))
            }
            Aim::Median(time) => (format!("{:.0} ms", milliseconds(time)), milliseconds(time)),
            Aim::Tail(time) => (format!("p99 {:.0} ms", milliseconds(time)), milliseconds(time)),
            Aim::Ratio(ratio) => (format!("{ratio:.1}×"), ratio),
            Aim::Mebibytes(size) => (format!("{size:.0} MiB"), size),
            Aim::None => return String::new(),
        };
        let over = self.measured / limit - 1.0;
        let verdict = if over <= 0.0 { "met".to_owned() } else { format!("missed by {:.0} %", over * 100.0) };
        format!("≤ {name:<12}{verdict}")
    }
}

pub fn header(machine: &str) {
    println!("\n{machine}\n");
    println!("{}", line("", ["p50", "p99", "floor p50", "ratio"].map(str::to_owned).as_slice(), "aim"));
}

pub fn print(rows: &[Row]) {
    for row in rows {
        println!("{}", line(&row.what, &row.cells, &row.verdict()));
    }
}

fn line(what: &str, cells: &[String], verdict: &str) -> String {
    let cells = cells.iter().map(|cell| format!("{cell:>11}")).collect::<Vec<_>>().concat();
    format!("{what:<76}{cells}   {verdict}").trim_end().to_owned()
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
