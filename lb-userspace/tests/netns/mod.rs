//! Network namespaces that a test makes and that go with it, also when it panics.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::AsFd as _,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a name of its own, gone when dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// Makes a namespace with `lo` up.
    ///
    /// # Panics
    /// Where this is not root.
    pub(crate) fn new(role: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{role}-{}-{count}", process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` in the namespace and returns what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs a future in the namespace, on a thread of its own, to its end.
    pub(crate) fn run<F: AsyncFnOnce() + Send>(&self, test: F) {
        self.enter(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(test());
        });
    }

    /// Sets `net.<path>` in the namespace.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let file = format!("/proc/sys/net/{path}");
        self.enter(|| fs::write(&file, value).unwrap_or_else(|e| panic!("write {file}: {e}")));
    }

    fn enter(&self, run: impl FnOnce() + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let done = thread::scope(|scope| {
            let inside = || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                run();
            };
            // As much as a main thread has: tables of 512 KiB are read by value.
            let thread = thread::Builder::new().stack_size(8 << 20);
            thread.spawn_scoped(scope, inside).unwrap().join()
        });
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Never panics: another panic may be under way.
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .status(),
        );
    }
}

/// Joins two namespaces by a veth pair, up, with these names and addresses (`10.0.0.1/24 2001:db8::1/64`).
pub(crate) fn join(left: (&Namespace, &str, &str), right: (&Namespace, &str, &str)) {
    ip(&format!(
        "link add {} netns {} type veth peer name {} netns {}",
        left.1, left.0.name, right.1, right.0.name
    ));
    for (namespace, device, addresses) in [left, right] {
        for address in addresses.split_whitespace() {
            let plain: IpAddr = address.split('/').next().unwrap().parse().unwrap();
            // IPv6 addresses would wait a second or two for duplicates.
            let nodad = if plain.is_ipv6() { "nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev {device} {nodad}"));
        }
        namespace.ip(&format!("link set {device} up"));
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("run ip, of iproute2");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
