//! BIRD as a process inside a host: the BGP speaker beside weir, or the router's.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{Lab, namespace::Namespace, process::Process};
use crate::workspace;

/// A running BIRD; its log is in the lab's folder.
#[derive(Debug)]
pub struct Bird {
    /// The process.
    pub process: Process,
    host: Namespace,
    control: PathBuf,
}

impl Bird {
    /// Starts a BIRD of this name with a configuration.
    pub fn start(lab: &Lab, host: &Namespace, name: &str, text: &str) -> Result<Self> {
        // What goes to syslog belongs into the log of the lab.
        let text = text.replace("log syslog all;", "log stderr all;");
        let config = lab.write(&format!("{name}.conf"), &text)?;
        let control = lab.folder().join(format!("{name}.ctl"));
        let mut command = host.command(program("bird"));
        command.arg("-f").arg("-c").arg(&config);
        command.arg("-s").arg(&control);
        command
            .arg("-P")
            .arg(lab.folder().join(format!("{name}.pid")));
        Ok(Self {
            process: Process::start(host, name, &mut command)?,
            host: host.clone(),
            control,
        })
    }

    /// Asks it, as `birdc` does.
    pub fn ask(&self, words: &str) -> Result<String> {
        let control = self.control.to_string_lossy().into_owned();
        let words = ["-s", &control].into_iter().chain(words.split(' '));
        let birdc = program("birdc");
        self.host.run(&birdc.to_string_lossy(), words)
    }
}

/// Where a program is, also where `PATH` leaves the system folders out.
fn program(name: &str) -> PathBuf {
    workspace::find_program(name).unwrap_or_else(|| name.into())
}

/// The example for weir's nodes (deploy/bird/weir.conf) with other definitions.
pub fn example(definitions: &[(&str, String)]) -> Result<String> {
    let path = workspace::root().join("deploy/bird/weir.conf");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut found = 0;
    let lines = text.lines().map(|line| {
        let name = line
            .strip_prefix("define ")
            .and_then(|rest| rest.split_whitespace().next());
        let other = definitions.iter().find(|(other, _)| Some(*other) == name);
        match other {
            Some((name, value)) => {
                found += 1;
                format!("define {name} = {value};\n")
            }
            None => format!("{line}\n"),
        }
    });
    let text = lines.collect();
    ensure!(
        found == definitions.len(),
        "{} does not define all of {definitions:?}",
        path.display()
    );
    Ok(text)
}
