//! A private network for the real node: a network namespace with loopback and the node's address only.
//!
//! Bridges, firewall rules and ipsets stay in it, and the kernel removes it with its last process.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::process::{run, spawn_from_here};

/// Address of the node, where the API server listens too.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// Address range of pods.
pub(crate) const PODS: &str = "10.211.0.0/16";

/// Interface of the node. The node determines its own address from a default route, though nothing is connected to the interface.
const LINKS: [&str; 6] = [
    "link set lo up",
    "link add node type veth peer name nowhere",
    "address add 10.210.0.1/24 dev node",
    "link set node up",
    "link set nowhere up",
    "route add default via 10.210.0.2 dev node",
];

/// The network, once a thread has entered it.
static NETWORK: Mutex<Option<File>> = Mutex::new(None);

/// Moves the calling thread, and every thread and process that it starts later, into a private network of this process. An async runtime
/// that should use it must be created afterwards. Downloads must be complete before.
///
/// # Errors
/// The process is not root, or `ip` is missing.
pub fn enter_private_network() -> anyhow::Result<()> {
    let mut network = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(network) = &*network {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        return Ok(());
    }
    #[allow(unsafe_code, reason = "unsafe only where file descriptors are unshared, too")]
    // SAFETY: this thread gets another network; file descriptors stay those of the process.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("make a network namespace")?;
    for link in LINKS {
        run(Command::new("ip").args(link.split(' '))).with_context(|| format!("ip {link}"))?;
    }
    spawn_from_here();
    *network = Some(File::open("/proc/thread-self/ns/net").context("open the network namespace")?);
    Ok(())
}

/// Returns whether the calling thread is in the private network: only it has the node's address.
pub(crate) fn ensure_private() -> anyhow::Result<()> {
    let bound: io::Result<TcpListener> = TcpListener::bind((NODE, 0));
    ensure!(bound.is_ok(), "a real node runs in a private network only: see enter_private_network");
    Ok(())
}
