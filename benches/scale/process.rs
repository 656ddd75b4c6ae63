//! What a process takes of the machine.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Resident memory in MiB, and processor seconds so far.
pub fn taken(pid: u32) -> Result<(f64, f64)> {
    let read = |name: &str| -> Result<String> {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let status = read("status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    let stat = read("stat")?;
    // After the name, which may have spaces: user and system time are the 12th and 13th.
    let rest = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short stat")?.parse::<f64>()?) };
    Ok((kib / 1024.0, (ticks(11)? + ticks(12)?) / 100.0))
}
