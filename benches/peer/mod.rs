//! The other side of a benchmark: a Python program that answers questions on its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longer than OpenBLAS's threads wait awake, a tenth of a second.
const REST: Duration = Duration::from_millis(200);

/// A Python program that answers each line with a number of seconds.
pub struct Peer {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Peer {
    /// Starts `benches/SCRIPT` with an interpreter and so many threads for its libraries; all of them where none is said.
    pub fn start(python: &str, script: &str, threads: Option<usize>) -> Self {
        let script = format!("{}/benches/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        if let Some(threads) = threads {
            command.env("OPENBLAS_NUM_THREADS", threads.to_string()).env("OMP_NUM_THREADS", threads.to_string());
        }
        let mut process = command
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python} {script}: {error}"));
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, answers }
    }

    /// What it answers to a question: mean seconds of one call. Threads of its libraries look out for more work for a while
    /// after a product; what is measured next has the processor to itself.
    pub fn ask(&mut self, question: &str) -> f64 {
        let questions = self.process.stdin.as_mut().expect("its input");
        writeln!(questions, "{question}").expect("a question");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        std::thread::sleep(REST);
        answer.trim().parse().unwrap_or(f64::NAN)
    }
}

/// The interpreter given with `--python`.
pub fn python() -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let place = arguments.iter().position(|argument| argument == "--python")?;
    arguments.get(place + 1).cloned()
}

/// The median; NaN of nothing.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
