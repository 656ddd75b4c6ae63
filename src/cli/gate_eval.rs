//! `resurgam gate-eval`: evaluates one expression in CEL for a `condition` gate, within limits that it sets itself. It reads the question
//! as JSON on standard input, and answers so on standard output.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cel::{Context, Env, ExecutionError, Value};
use resurgam_core::gates::condition::{Evaluation, EvaluationError, OBJECT_LIMIT};

/// Stack of the thread that parses and evaluates, in bytes. The library nests 96 levels deep, for which 16 MiB suffice.
const STACK: usize = 32 << 20;
/// Maximum memory for heap and stacks, in bytes.
const MEMORY: u64 = 160 << 20;
/// Maximum size of the address space, in bytes, the program itself included.
const ADDRESS_SPACE: u64 = 1 << 30;
/// Maximum processor time, in seconds.
const PROCESSOR_TIME: u64 = 2;
/// Maximum size of a question, in bytes: escapes make the expression longer.
const QUESTION_LIMIT: u64 = OBJECT_LIMIT as u64 + (64 << 10);
/// Maximum length of a message, in characters.
const MESSAGE_LIMIT: usize = 200;

/// Arguments of `resurgam gate-eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Result<ExitCode> {
    limit().context("limits could not be set")?;
    let mut text = Vec::new();
    std::io::stdin().lock().take(QUESTION_LIMIT).read_to_end(&mut text)?;
    let question: Evaluation = serde_json::from_slice(&text).context("the question is no JSON")?;
    drop(text);
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || evaluate(question))?;
    let answer = thread.join().unwrap_or_else(|_| {
        Err(EvaluationError::Evaluator("the library that evaluates expressions panicked".to_owned()))
    });
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&serde_json::to_vec(&answer)?)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Limits this process. Nothing was read before.
#[cfg(unix)]
fn limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        // The kernel kills at the hard limit.
        (Resource::Cpu, PROCESSOR_TIME, PROCESSOR_TIME + 1),
        (Resource::As, ADDRESS_SPACE, ADDRESS_SPACE),
        (Resource::Data, MEMORY, MEMORY),
    ] {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })?;
    }
    // Where memory is short for all, this process goes first. It is not always permitted to say so.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Without limits, nothing is evaluated.
#[cfg(not(unix))]
fn limit() -> Result<()> {
    anyhow::bail!("this system has no limits of processes")
}

fn evaluate(question: Evaluation) -> Result<bool, EvaluationError> {
    let Evaluation { expression, object } = question;
    let env = Arc::new(Env::stdlib());
    let program = env.compile(&expression).map_err(|errors| {
        // One mistake has several errors; the first is nearest to it.
        let message = errors.errors.first().map_or("", |error| error.msg.as_str());
        let message = if message.contains("Recursion limit") { "it is nested too deeply" } else { message };
        EvaluationError::DoesNotCompile(shorten(message))
    })?;
    let mut context = Context::with_env(env);
    context.add_variable("object", &object).map_err(|_| {
        EvaluationError::Failed("the object has a value that an expression cannot hold".to_owned())
    })?;
    drop(object);
    match program.execute(&context) {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(other) => Err(EvaluationError::NotBoolean(format!("it is of type {}", other.type_of()))),
        Err(error) => Err(EvaluationError::Failed(shorten(&describe(&error)))),
    }
}

/// Returns why an evaluation failed, by names alone: errors of the library contain values of the object.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no field {key}"),
        ExecutionError::UndeclaredReference(name) => format!("there is no variable or function {name}"),
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::FunctionError { function, .. } => format!("function {function} fails"),
        ExecutionError::UnexpectedType { got, want } => format!("it has {got} where {want} is needed"),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("operator {operator} does not apply to these types")
        }
        ExecutionError::NotSupportedAsMethod { method, .. } => {
            format!("there is no method {method} of that type")
        }
        ExecutionError::InvalidArgumentCount { .. } => {
            "a function has the wrong number of arguments".to_owned()
        }
        ExecutionError::ValuesNotComparable(..) => "two values cannot be compared".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(operator, ..) => format!("operator {operator} overflows"),
        _ => "it has no value".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}
