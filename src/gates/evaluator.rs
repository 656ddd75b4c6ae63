//! Evaluates expressions in CEL in processes of their own: a library that parses and runs them has no budget of memory or time, and what
//! runs away in one must not take the operator with it. [`crate::cli`] has the other side, `resurgam gate-eval`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use resurgam_core::gates::condition::{Evaluation, EvaluationError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Processes at a time: each may use what `gate-eval` limits itself to.
const AT_ONCE: usize = 2;
/// How long one may run. It limits its own processor time, which ends most of them earlier.
const DEADLINE: Duration = Duration::from_secs(8);
/// Maximum length of an answer, in bytes.
const ANSWER_LIMIT: u64 = 4 << 10;

/// Signals by which processes end that exceed a limit.
const ABORT: i32 = 6;
const KILL: i32 = 9;
const SEGMENTATION: i32 = 11;
const PROCESSOR_TIME: i32 = 24;

/// Answer of `gate-eval`, as JSON on its standard output.
type Evaluated = Result<bool, EvaluationError>;

/// Starts processes that evaluate expressions.
pub(super) struct Evaluator {
    /// `None`: this process's own program.
    program: Option<PathBuf>,
    slots: Semaphore,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self { program: None, slots: Semaphore::new(AT_ONCE) }
    }
}

impl Evaluator {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program: Some(program), ..Self::default() }
    }

    /// Evaluates an expression. Dropping the future kills the process.
    pub(super) async fn evaluate(&self, evaluation: &Evaluation) -> Evaluated {
        let failed =
            |what: &str, why: &dyn std::fmt::Display| EvaluationError::Evaluator(format!("{what}: {why}"));
        let input =
            serde_json::to_vec(evaluation).map_err(|error| failed("the object is no JSON", &error))?;
        let _slot = self.slots.acquire().await.map_err(|error| failed("no process is free", &error))?;
        let mut child = self.start().map_err(|error| failed("gate-eval cannot be started", &error))?;
        let outcome = tokio::time::timeout(DEADLINE, converse(&mut child, &input)).await;
        let Ok(outcome) = outcome else {
            // Killed and awaited here, so that none is left when the slot is given back.
            let _ = child.kill().await;
            let why = format!("it has not ended within {} s", DEADLINE.as_secs());
            return Err(EvaluationError::LimitExceeded(why));
        };
        let (answer, status) = outcome.map_err(|error| failed("gate-eval does not answer", &error))?;
        if !status.success() {
            return Err(ending(status));
        }
        serde_json::from_slice(&answer)
            .map_err(|_| EvaluationError::Evaluator("gate-eval answers no JSON".to_owned()))?
    }

    fn start(&self) -> std::io::Result<Child> {
        let program = self.program.clone().map_or_else(own_program, Ok)?;
        Command::new(program)
            .arg("gate-eval")
            // Credentials are in the environment.
            .env_clear()
            // Each arena of the allocator reserves memory that the limits count.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Returns the running program, even after its file was replaced.
fn own_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() }
}

/// Writes the question, and reads the answer and how the process ended.
async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<(Vec<u8>, std::process::ExitStatus)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A process that has ended says why by its status.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let ((), answer) = tokio::join!(write, read);
    Ok((answer?, child.wait().await?))
}

/// Returns why a process ended without an answer.
fn ending(status: std::process::ExitStatus) -> EvaluationError {
    let why = match signal(status) {
        Some(PROCESSOR_TIME) => "it takes more processor time than it may",
        Some(ABORT | SEGMENTATION) => "it takes more memory than it may, or is nested too deeply",
        Some(KILL) => "it was killed, by the limit of memory or of processor time",
        _ => return EvaluationError::Evaluator(format!("gate-eval ended with {status}")),
    };
    EvaluationError::LimitExceeded(why.to_owned())
}

/// Returns the signal that ended a process.
#[cfg(unix)]
fn signal(status: std::process::ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// Returns none: this system has no signals.
#[cfg(not(unix))]
fn signal(_: std::process::ExitStatus) -> Option<i32> {
    None
}
