//! Runs the program as a user does, in a folder of its own.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder to run in, with a cache of its own.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and returns its path.
    #[allow(dead_code, reason = "not every test that runs the program writes a file")]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// The program, about to be started here.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parsimony"));
        command.current_dir(self.path()).env("PARSIMONY_CACHE_DIR", self.path().join("cache"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What the program says and with which exit code it ends.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// What it prints where it succeeds.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The message with which it ends, and without a panic, with this exit code.
    #[allow(dead_code, reason = "not every test that runs the program makes it fail")]
    pub fn fail(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{arguments:?}: {message}");
        message
    }

    /// The cells of `runs/NAME` as `summary --format json` prints them.
    #[allow(dead_code, reason = "not every test that runs the program runs an experiment")]
    pub fn cells(&self, run: &str) -> Vec<Value> {
        let text = self.succeed(&["summary", &format!("runs/{run}"), "--format", "json"]);
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The cell of an optimizer with its smallest seed.
#[allow(dead_code, reason = "not every test that runs the program asks for one cell")]
pub fn cell<'a>(cells: &'a [Value], optimizer: &str) -> &'a Value {
    let of_optimizer = cells.iter().filter(|cell| cell["optimizer"] == optimizer);
    of_optimizer.min_by_key(|cell| cell["seed"].as_u64()).unwrap_or_else(|| panic!("no cell of {optimizer}"))
}
