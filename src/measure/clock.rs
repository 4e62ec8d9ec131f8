//! One clock for a cell: every moment belongs to exactly one of its four parts, so that they add up to wall time.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What a cell is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Reading data, building the model, going to the start.
    Setup,
    /// Data access, sampling and optimizer work: the seconds that budgets and curves count.
    Training,
    /// Metrics for the trace.
    Evaluation,
    /// Checkpoints, progress, files.
    Recording,
}

/// Seconds of a cell, over all its attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Of [`Section::Setup`].
    pub setup: f64,
    /// Of [`Section::Training`].
    pub training: f64,
    /// Of [`Section::Evaluation`].
    pub evaluation: f64,
    /// Of [`Section::Recording`].
    pub recording: f64,
    /// From the first moment to the last, measured apart.
    pub wall: f64,
}

/// A running clock.
#[derive(Debug)]
pub struct Clock {
    earlier: Seconds,
    parts: [Duration; 4],
    section: Section,
    started: Instant,
    mark: Instant,
}

impl Clock {
    /// Starts in [`Section::Setup`].
    #[must_use]
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            earlier: Seconds::default(),
            parts: [Duration::ZERO; 4],
            section: Section::Setup,
            started: now,
            mark: now,
        }
    }

    /// Adds what an earlier attempt at the same cell took.
    pub fn resume(&mut self, earlier: Seconds) {
        self.earlier = earlier;
    }

    /// From now on, time belongs to `section`.
    pub fn switch(&mut self, section: Section) {
        let now = Instant::now();
        self.parts[self.section as usize] += now - self.mark;
        self.section = section;
        self.mark = now;
    }

    /// Seconds of training so far.
    #[must_use]
    pub fn training(&self) -> f64 {
        self.earlier.training + self.part(Section::Training).as_secs_f64()
    }

    fn part(&self, section: Section) -> Duration {
        let running = if section == self.section { self.mark.elapsed() } else { Duration::ZERO };
        self.parts[section as usize] + running
    }

    /// All parts so far, earlier attempts included.
    #[must_use]
    pub fn seconds(&self) -> Seconds {
        let part = |section| self.part(section).as_secs_f64();
        Seconds {
            setup: self.earlier.setup + part(Section::Setup),
            training: self.training(),
            evaluation: self.earlier.evaluation + part(Section::Evaluation),
            recording: self.earlier.recording + part(Section::Recording),
            wall: self.earlier.wall + self.started.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_wall_time_and_go_on_after_a_resume() {
        let mut clock = Clock::start();
        for section in [Section::Training, Section::Evaluation, Section::Training, Section::Recording] {
            clock.switch(section);
            std::thread::sleep(Duration::from_millis(3));
        }
        let first = clock.seconds();
        assert!(first.training >= 0.006 && first.evaluation >= 0.003);
        let mut clock = Clock::start();
        clock.resume(first);
        clock.switch(Section::Training);
        std::thread::sleep(Duration::from_millis(2));
        let s = clock.seconds();
        assert!(s.training >= first.training + 0.002);
        let sum = s.setup + s.training + s.evaluation + s.recording;
        assert!((sum - s.wall).abs() <= 0.02 * s.wall, "{sum} of {}", s.wall);
    }
}
