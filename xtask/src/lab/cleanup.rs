//! Taking labs down: by name, so that it works for a lab of a process that is long dead.

use std::{
    collections::BTreeSet,
    fs, io, process,
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{exec, id::LabId, labs, wait};

/// How long killed processes may take to disappear.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes one lab: its processes, namespaces, bpffs and folder. What is gone already is no error.
pub fn remove(id: &LabId) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for name in namespaces_of(id)? {
        kill_all(&name)?;
        // Another run's janitor may be quicker.
        if let Err(error) = exec::run_ungated(&mut exec::command("ip", ["netns", "del", &name]))
            && namespaces_of(id)?.contains(&name)
        {
            return Err(error);
        }
    }
    let folder = id.folder();
    let bpffs = folder.join("bpf");
    // A process that was killed is a zombie before the last of its threads lets go of its files.
    wait::eventually("the lab's bpffs to be free", PATIENCE, || {
        while is_mounted(&bpffs.to_string_lossy())? {
            if let Err(error) = exec::run_ungated(exec::command("umount", [""; 0]).arg(&bpffs))
                && is_mounted(&bpffs.to_string_lossy())?
            {
                return Err(error);
            }
        }
        Ok(())
    })?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))?;
        }
        _ => {}
    }
    // The last lab takes the common folder with it; while another stands, this fails, and should.
    fs::remove_dir(labs()).ok();
    Ok(())
}

/// Removes every lab whose owner is dead, except those that were meant to stay.
pub fn sweep() -> Result<()> {
    for id in all()? {
        if !id.owner_is_alive() && !is_kept(&id) {
            eprintln!("lab {id}: its owner is dead, removing what is left of it");
            remove(&id).with_context(|| format!("remove what lab {id} left behind"))?;
        }
    }
    Ok(())
}

/// Lists the labs that were left standing on purpose.
pub fn kept() -> Result<Vec<LabId>> {
    Ok(all()?.into_iter().filter(is_kept).collect())
}

/// Lists what is left of a lab, in words: namespaces, mounts, folders and processes.
pub fn leftovers(id: &LabId) -> Result<Vec<String>> {
    let mut left: Vec<_> = namespaces_of(id)?
        .into_iter()
        .map(|name| format!("namespace {name}"))
        .collect();
    let text = id.folder().to_string_lossy().into_owned();
    if id.folder().exists() {
        left.push(format!("folder {text}"));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&text))
            .map(|line| format!("mount {line}")),
    );
    left.extend(processes_of(id)?);
    Ok(left)
}

/// Cleans up after this process on Ctrl-C, SIGTERM and SIGHUP, and ends it.
pub(super) fn on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handled = ctrlc::set_handler(|| {
            exec::shut(|| {
                eprintln!("interrupted: removing the lab");
                for id in all()
                    .unwrap_or_default()
                    .iter()
                    .filter(|id| id.is_mine() && !is_kept(id))
                {
                    if let Err(error) = remove(id) {
                        eprintln!("lab {id}: not everything could be removed: {error:#}");
                    }
                }
                process::exit(130);
            });
        });
        if let Err(error) = handled {
            eprintln!("signals will not clean the lab up: {error}");
        }
    });
}

/// Lists the labs of this machine, whoever owns them.
fn all() -> Result<BTreeSet<LabId>> {
    let namespaces = entries("/run/netns")?
        .into_iter()
        .filter_map(|name| LabId::of_namespace(&name));
    let folders = entries("/run/weir-lab")?
        .into_iter()
        .filter_map(|name| name.parse().ok());
    Ok(namespaces.chain(folders).collect())
}

fn namespaces_of(id: &LabId) -> Result<Vec<String>> {
    let prefix = id.prefix();
    Ok(entries("/run/netns")?
        .into_iter()
        .filter(|name| name.starts_with(&prefix))
        .collect())
}

fn is_kept(id: &LabId) -> bool {
    id.folder().join("keep").exists()
}

fn is_mounted(path: &str) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path)))
}

/// Kills whatever runs in a namespace, until nothing does.
fn kill_all(namespace: &str) -> Result<()> {
    wait::until(
        &format!("the processes in {namespace} to end"),
        PATIENCE,
        || {
            // The namespace may be gone by now, and so is everything in it.
            let pids = exec::run_ungated(&mut exec::command("ip", ["netns", "pids", namespace]))
                .unwrap_or_default();
            let pids: Vec<_> = pids
                .lines()
                .filter_map(|line| line.trim().parse().ok())
                .filter_map(Pid::from_raw)
                .collect();
            for pid in &pids {
                // One that cannot be killed has ended since it was listed.
                kill_process(*pid, Signal::KILL).ok();
            }
            Ok(pids.is_empty())
        },
    )
}

/// Lists the processes that carry a lab's id in their environment, wherever they are.
fn processes_of(id: &LabId) -> Result<Vec<String>> {
    let mark = format!("{}={id}", LabId::VARIABLE);
    let pids = entries("/proc")?
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok());
    let marked = pids.filter(|pid| {
        // A process that ends meanwhile has no environment any more.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    });
    let shown = marked.map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!(
            "process {pid} {}",
            String::from_utf8_lossy(&line).replace('\0', " ").trim()
        )
    });
    Ok(shown.collect())
}

/// Lists the names in a folder; a folder that is not there holds none.
fn entries(folder: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {folder}")),
    };
    Ok(entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}
