//! A redis-server of a test's own, on a Unix socket in a directory of its own.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use lb_userspace::config::Endpoint;
use rustix::process::{Pid, Signal, kill_process};

/// Longer than any start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; killed when dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more of its own arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self {
            directory,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            child: None,
        };
        server.restart();
        server
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Starts it again, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs: `cargo xtask setup` installs it");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let is_gone = self.child.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(is_gone, None, "redis-server ended");
            assert!(Instant::now() < deadline, "redis-server does not listen");
            sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            child.wait().unwrap();
        }
    }

    /// Stops it, so that it still takes connections and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// Its URL, with a user and a password if need be.
    pub(crate) fn endpoint(&self, query: &str) -> Endpoint {
        Endpoint::parse(&format!("unix://{}{query}", self.socket().display())).unwrap()
    }

    /// Runs one command as the default user.
    pub(crate) fn command(&self, words: &[&str]) -> redis::Value {
        self.try_command(words).unwrap()
    }

    /// The same, where it may not answer just now.
    pub(crate) fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("unix://{}", self.socket().display()))?;
        let mut connection = client.get_connection()?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
