//! `state_file`: what must survive the daemon and is nowhere else: commands made through the API, and the
//! generation that they left behind.
//!
//! The file is replaced in one step (written beside, synced, renamed, the directory synced), so that a kill or a
//! power cut leaves the old whole or the new one. A file that cannot be understood stops no daemon, since a load
//! balancer that does not start is worse than one that has forgotten a drain: it is moved aside to
//! `<state_file>.bad`, and as long as that one lies there, `weir status` says so.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    announce::Commands,
    config::Prefix,
    model::{
        blocks::{Block, BlockName, Blocks},
        overrides::{BackendName, Override, Overrides},
    },
};

/// The only layout of the file so far.
const VERSION: u32 = 1;

/// A file with an override for each of the 65,533 backends is a quarter of this.
const LARGEST: u64 = 32 * 1024 * 1024;

/// What survives the daemon.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct State {
    /// The last generation that was reached, so that a change based on a state from before a restart is stale.
    pub(crate) generation: u64,
    /// Commands that hold until they are undone.
    pub(crate) overrides: Overrides,
    /// Whom commands block.
    pub(crate) blocks: Blocks,
    /// Which addresses commands have had announced, or not.
    pub(crate) announce: Commands,
    /// How many nodes the fleet was last known to have; 0 where nobody has counted. It says what is an even share of a limit while
    /// Redis is away.
    pub(crate) fleet_nodes: u32,
    /// Whether a command withdraws every address of this node.
    pub(crate) node_drained: bool,
}

/// The file under its path.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    generation: u64,
    overrides: Vec<Entry>,
    /// Not written by the first versions.
    #[serde(default)]
    blocks: Vec<BlockEntry>,
    #[serde(default)]
    announce: Vec<AnnounceEntry>,
    #[serde(default)]
    fleet_nodes: u32,
    /// Written only where it is so, so that older versions read what a newer one left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_drained: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AnnounceEntry {
    address: IpAddr,
    on: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BlockEntry {
    prefix: Prefix,
    vip: Option<String>,
    /// Milliseconds since 1970, as the next.
    since_ms: u64,
    until_ms: Option<u64>,
    reason: Option<String>,
    by: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    vip: String,
    backend: IpAddr,
    drained: bool,
    weight: Option<u16>,
}

impl StateFile {
    /// The file under a path.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// What the file holds, nothing where there is none, and what an operator should know of it.
    pub(crate) fn load(&self) -> (State, Option<String>) {
        let state = match self.read() {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), state_file = %self.path.display(), "commands of the past are lost");
                if let Err(error) = fs::rename(&self.path, self.aside()) {
                    tracing::error!(%error, "the broken state file cannot be moved aside");
                }
                let problem = format!(
                    "drains, weights, blocks and announcements set by command are lost: {error:#}; set them again"
                );
                return (State::default(), Some(self.with_remedy(&problem)));
            }
        };
        let is_aside = fs::symlink_metadata(self.aside()).is_ok();
        let problem = is_aside.then(|| {
            self.with_remedy(
                "drains, weights, blocks and announcements set by command were lost at an earlier start; set them again",
            )
        });
        (state, problem)
    }

    /// What is left of the file where the past is to be forgotten: its generation, so that what was based on
    /// that past is stale. What an earlier start has set aside goes.
    pub(crate) fn forget(&self) -> State {
        let before = self.read().unwrap_or_default();
        for (name, _) in before.overrides.iter() {
            tracing::info!(vip = name.vip, backend = %name.backend, "command forgotten");
        }
        for (name, _) in before.blocks.iter() {
            tracing::info!(vip = name.vip, prefix = %name.prefix, "block forgotten");
        }
        if before.node_drained {
            tracing::info!(drained = false, "drain of the node forgotten");
        }
        for (address, _) in before.announce.iter() {
            tracing::info!(%address, "announcement by command forgotten");
        }
        if let Err(error) = fs::remove_file(self.aside())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.aside().display(), "what was set aside stays");
        }
        State {
            generation: before.generation,
            fleet_nodes: before.fleet_nodes,
            ..State::default()
        }
    }

    /// Replaces the file, and makes its directory if need be.
    ///
    /// # Errors
    /// The file is the old one where it could not be written.
    pub(crate) fn save(&self, state: &State) -> anyhow::Result<()> {
        self.write(state)
            .with_context(|| format!("keep state in {}", self.path.display()))
    }

    fn read(&self) -> anyhow::Result<State> {
        let path = self.path.display();
        let text = match read_file(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        let document: Document =
            serde_json::from_str(&text).with_context(|| format!("understand {path}"))?;
        anyhow::ensure!(
            document.version == VERSION,
            "{path} is of layout {}, and this weir knows only {VERSION}",
            document.version
        );
        Ok(document.into())
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&Document::from(state)).map_err(io::Error::other)?;
        replace_file(&self.path, &text)
    }

    fn with_remedy(&self, problem: &str) -> String {
        let aside = self.aside();
        format!(
            "{problem}, then remove {} (docs/control.md)",
            aside.display()
        )
    }

    fn aside(&self) -> PathBuf {
        self.suffixed("bad")
    }

    fn suffixed(&self, suffix: &str) -> PathBuf {
        suffixed(&self.path, suffix)
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// Replaces a file in one step, and makes its directory if need be.
///
/// # Errors
/// The file is the old one where it could not be written.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let beside = suffixed(path, "new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // What is left beside is harmless: the next write takes its place.
        fs::remove_file(&beside).ok();
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

/// The text of a file of a bounded size.
///
/// # Errors
/// It cannot be read, or is larger.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    if length as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes")));
    }
    Ok(text)
}

impl From<Document> for State {
    fn from(document: Document) -> Self {
        let mut overrides = Overrides::default();
        for entry in document.overrides {
            let name = BackendName {
                vip: entry.vip,
                backend: entry.backend,
            };
            let value = Override {
                is_drained: entry.drained,
                weight: entry.weight,
            };
            overrides.set(name, value);
        }
        let mut blocks = Blocks::default();
        for entry in document.blocks {
            let name = BlockName {
                vip: entry.vip,
                prefix: entry.prefix,
            };
            let block = Block {
                since: time(entry.since_ms),
                until: entry.until_ms.map(time),
                reason: entry.reason,
                by: entry.by,
            };
            if let Err(error) = blocks.set(name, block) {
                tracing::error!(%error, "a block of the past is lost");
            }
        }
        let mut announce = Commands::default();
        for AnnounceEntry { address, on } in document.announce {
            announce.set(address, on);
        }
        Self {
            generation: document.generation,
            overrides,
            blocks,
            announce,
            fleet_nodes: document.fleet_nodes,
            node_drained: document.node_drained,
        }
    }
}

impl From<&State> for Document {
    fn from(state: &State) -> Self {
        let entries = state.overrides.iter().map(|(name, value)| Entry {
            vip: name.vip.clone(),
            backend: name.backend,
            drained: value.is_drained,
            weight: value.weight,
        });
        Self {
            version: VERSION,
            generation: state.generation,
            overrides: entries.collect(),
            blocks: state.blocks.iter().map(block_entry).collect(),
            announce: state
                .announce
                .iter()
                .map(|(address, on)| AnnounceEntry { address, on })
                .collect(),
            fleet_nodes: state.fleet_nodes,
            node_drained: state.node_drained,
        }
    }
}

fn block_entry((name, block): (&BlockName, &Block)) -> BlockEntry {
    BlockEntry {
        prefix: name.prefix,
        vip: name.vip.clone(),
        since_ms: milliseconds(block.since),
        until_ms: block.until.map(milliseconds),
        reason: block.reason.clone(),
        by: block.by.clone(),
    }
}

fn time(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut overrides = Overrides::default();
        let name = |vip: &str, backend: &str| BackendName {
            vip: vip.to_owned(),
            backend: backend.parse().unwrap(),
        };
        let drained = Override {
            is_drained: true,
            weight: None,
        };
        overrides.set(name("web", "10.0.0.11"), drained);
        let weight = Override {
            is_drained: false,
            weight: Some(0),
        };
        overrides.set(name("web", "2001:db8::11"), weight);
        let mut blocks = Blocks::default();
        let block = Block {
            since: time(1_700_000_000_123),
            until: Some(time(1_700_000_600_123)),
            reason: Some("scans".to_owned()),
            by: "uid 0".to_owned(),
        };
        for vip in [None, Some("web".to_owned())] {
            let prefix = "192.0.2.0/24".parse().unwrap();
            blocks
                .set(BlockName { vip, prefix }, block.clone())
                .unwrap();
        }
        let mut announce = Commands::default();
        announce.set("203.0.113.10".parse().unwrap(), false);
        announce.set("2001:db8::10".parse().unwrap(), true);
        State {
            generation: 17,
            overrides,
            blocks,
            announce,
            fleet_nodes: 3,
            node_drained: true,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/for/it/state.json");
        let file = StateFile::new(&path);
        assert_eq!(file.load(), (State::default(), None));
        file.save(&State::default()).unwrap();
        file.save(&state()).unwrap();
        assert_eq!(file.load(), (state(), None));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_moved_aside_and_said_until_it_is_removed() {
        let whole = serde_json::to_string(&Document::from(&state())).unwrap();
        let cut = whole.get(..whole.len() - 9).unwrap();
        let newer = whole.replace("\"version\":1", "\"version\":2");
        for text in ["", "{}", "\u{0}", cut, &newer] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state.json");
            fs::write(&path, text).unwrap();
            let file = StateFile::new(&path);
            let (found, problem) = file.load();
            assert_eq!(found, State::default());
            let problem = problem.unwrap();
            assert!(problem.contains("are lost"), "{problem}");
            assert!(problem.contains("state.json.bad"), "{problem}");

            file.save(&state()).unwrap();
            let (found, problem) = file.load();
            assert_eq!(found, state());
            assert!(problem.unwrap().contains("at an earlier start"));
            let aside = directory.path().join("state.json.bad");
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
            fs::remove_file(aside).unwrap();
            assert_eq!(file.load(), (state(), None));
        }
    }

    #[test]
    fn a_file_from_before_there_were_blocks_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, r#"{"version":1,"generation":4,"overrides":[]}"#).unwrap();
        let (state, problem) = StateFile::new(&path).load();
        assert_eq!((state.generation, problem), (4, None));
        assert!(state.blocks.is_empty());
    }

    #[test]
    fn only_the_generation_outlives_a_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let file = StateFile::new(&path);
        assert_eq!(file.forget(), State::default());
        fs::write(&path, "no state").unwrap();
        assert!(file.load().1.is_some());
        file.save(&state()).unwrap();
        let left = file.forget();
        assert_eq!((left.generation, left.overrides.iter().count()), (17, 0));
        file.save(&left).unwrap();
        // What an earlier start had set aside is gone as well.
        assert_eq!(file.load(), (left, None));
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let file = StateFile::new(&path);
        file.save(&state()).unwrap();
        fs::create_dir(directory.path().join("state.json.new")).unwrap();
        let error = file.save(&State::default()).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("keep state in"),
            "{error:#}"
        );
        assert_eq!(file.load().0, state());
    }
}
