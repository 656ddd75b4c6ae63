//! Child processes that never outlive this process.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

/// Number of log lines in an error message.
const TAIL_LINES: usize = 15;

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Thread that starts every child. The kernel sends the parent-death signal when the *thread* that started a child ends, so it must live
/// as long as the process.
static SPAWNER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

/// Starts `command` such that the kernel kills it when this process ends, however it ends.
///
/// # Errors
/// The command cannot be started.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect; then nobody would ever send the signal.
        if getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    #[allow(
        unsafe_code,
        reason = "prctl must run in the child, between fork and exec; there is no safe way in"
    )]
    // SAFETY: the closure makes two system calls; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(bind);
    }
    // A terminal's Ctrl-C is for us alone: we end the children in order.
    command.process_group(0);

    let (reply, answer) = mpsc::sync_channel(1);
    spawner()?.send((command, reply)).map_err(|_| spawner_gone())?;
    answer.recv().map_err(|_| spawner_gone())?
}

/// Sends SIGTERM to a child.
///
/// # Errors
/// The signal cannot be sent.
pub fn terminate(child: &mut Child) -> io::Result<()> {
    // One that has not been reaped still has its id.
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM).map_err(io::Error::from))
}

fn spawner() -> io::Result<mpsc::Sender<Order>> {
    let mut spawner = lock(&SPAWNER);
    if let Some(orders) = spawner.as_ref() {
        return Ok(orders.clone());
    }
    let (orders, inbox) = mpsc::channel::<Order>();
    std::thread::Builder::new().name("spawner".into()).spawn(move || {
        for (mut command, reply) in inbox {
            // Nobody waits for the answer any more: the child must not stay behind.
            if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    })?;
    *spawner = Some(orders.clone());
    Ok(orders)
}

/// Uses a thread in the caller's network to start children from now on. The previous thread stays alive, as its children would die with
/// it.
pub(crate) fn spawn_from_here() {
    std::mem::forget(lock(&SPAWNER).take());
}

fn spawner_gone() -> io::Error {
    io::Error::other("the thread that starts child processes has ended")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running component. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a component with stdout and stderr in `log`, which is truncated first.
    pub(crate) fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn_bound(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name, child: Mutex::new(child), log: log.to_owned() })
    }

    /// Returns an error with the end of the log if the component has exited.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}).\n{}", self.name, self.tail()),
        }
    }

    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        lock(&self.child).try_wait()
    }

    /// Returns the end of the component's log, with the path of the log.
    pub(crate) fn tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("The end of {}:\n{tail}", self.log.display())
    }

    /// Sends SIGTERM to the component, and kills it if it has not exited by `deadline`.
    pub(crate) async fn stop(&self, deadline: Duration) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let until = Instant::now() + deadline;
        while Instant::now() < until {
            if self.ended()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        Ok(())
    }

    /// Returns the process ID. It is still the child's: the child is not reaped while its lock is held and it has not been observed to
    /// exit.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut child = lock(&self.child);
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.map_or(Ok(()), |pid| kill_process(pid, signal).map_err(io::Error::from))
    }

    /// Kills the component and waits for its end.
    pub(crate) fn kill(&self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program of the host to its end.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{:?} ended with {}: {}", command.get_program(), output.status, said.trim())
}
