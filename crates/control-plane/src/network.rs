//! A network of our own, for the real node: a network namespace with nothing in it but loopback and the node's address.
//!
//! Bridges, rules and sets of those who route and filter stay in it, and the kernel clears it away with the last process in it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::process::{run, spawn_from_here};

/// The address of the node, which the API server listens at, too.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 210, 0, 1);
/// Where pods are.
pub(crate) const PODS: &str = "10.211.0.0/16";

/// What the node has instead of a cable. It needs a default route to know its own address by, though nothing is at the other end.
const LINKS: [&str; 6] = [
    "link set lo up",
    "link add node type veth peer name nowhere",
    "address add 10.210.0.1/24 dev node",
    "link set node up",
    "link set nowhere up",
    "route add default via 10.210.0.2 dev node",
];

/// The network, once somebody has entered it.
static NETWORK: Mutex<Option<File>> = Mutex::new(None);

/// Moves the calling thread, and every thread and process that it starts from now on, into a network of this process's own. So an
/// async runtime that is to be in it is made afterwards. Whatever is to come from the outside has to be there before.
///
/// # Errors
/// Who is not root may not, and `ip` has to be there.
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

/// Whether the calling thread is in it: nobody else has the node's address.
pub(crate) fn ensure_private() -> anyhow::Result<()> {
    let bound: io::Result<TcpListener> = TcpListener::bind((NODE, 0));
    ensure!(bound.is_ok(), "a real node runs in a private network only: see enter_private_network");
    Ok(())
}
