//! Sees when the files of access lists change, and reads them again: as a whole or not at all.
//!
//! Files are looked at every second. That finds every way in which a file can be replaced (rename, symbolic links of
//! Kubernetes, network file systems), where inotify does not. A file is read once it has been the same for two looks,
//! so that one that is being written is not taken for whole.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use crate::config::{
    Config, Errors, Lists,
    list_file::{self, Contents, Stamp},
};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// How a look at a file ended: how it is, or why that cannot be told.
type Seen = Result<Stamp, String>;

/// The lists that have files, by VIP name; `None` for all VIPs together.
pub type WithFiles = BTreeMap<Option<String>, Lists>;

/// The lists of a configuration that have files.
#[must_use]
pub fn with_files(config: &Config) -> WithFiles {
    let all = config
        .lists()
        .filter(|(_, lists)| lists.files().next().is_some());
    all.map(|(vip, lists)| (vip.map(|vip| vip.name.clone()), lists.clone()))
        .collect()
}

/// What has become of files that changed.
#[derive(Debug)]
pub struct Reread {
    /// What the lists were that have them.
    pub before: WithFiles,
    /// The same with the files as they are now.
    pub after: WithFiles,
    /// Files that cannot be used as they are now, and why. What they held before still counts.
    pub refused: Vec<(PathBuf, Errors)>,
}

/// The task that watches the files; it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    wanted: watch::Sender<WithFiles>,
    found: mpsc::Receiver<Reread>,
}

impl Watcher {
    /// Starts the task, without files.
    #[must_use]
    pub fn start() -> Self {
        let (wanted, watched) = watch::channel(WithFiles::new());
        let (sender, found) = mpsc::channel(1);
        tokio::spawn(run(watched, sender));
        Self { wanted, found }
    }

    /// Watches the files of these lists from now on.
    pub fn watch(&self, lists: WithFiles) {
        self.wanted.send_replace(lists);
    }

    /// What becomes of the next files that change.
    pub async fn next(&mut self) -> Reread {
        match self.found.recv().await {
            Some(reread) => reread,
            None => std::future::pending().await,
        }
    }
}

async fn run(mut watched: watch::Receiver<WithFiles>, found: mpsc::Sender<Reread>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::default();
    loop {
        ticks.tick().await;
        if watched.has_changed().is_err() {
            return;
        }
        let lists = watched.borrow_and_update().clone();
        if lists.is_empty() {
            // Nothing to do until there are files.
            if watched.changed().await.is_err() {
                return;
            }
            continue;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let reread = looks.look(&lists, &|path| Stamp::of(path).map_err(|e| e.to_string()));
            (looks, reread)
        });
        let Ok((kept, reread)) = looked.await else {
            return;
        };
        looks = kept;
        if let Some(reread) = reread
            && found.send(reread).await.is_err()
        {
            return;
        }
    }
}

/// What was seen of files so far.
#[derive(Default)]
struct Looks {
    /// How each file was at the last look.
    last: BTreeMap<PathBuf, Seen>,
    /// How those were that could not be used.
    refused: BTreeMap<PathBuf, Seen>,
}

impl Looks {
    /// Looks at the files of lists, and reads those that have changed and been left alone since the last look.
    fn look(
        &mut self,
        lists: &WithFiles,
        see: &dyn Fn(&std::path::Path) -> Seen,
    ) -> Option<Reread> {
        let mut known: BTreeMap<&PathBuf, Option<Stamp>> = BTreeMap::new();
        for file in lists.values().flat_map(Lists::files) {
            known.insert(&file.path, file.stamp);
        }
        let mut changed = Vec::new();
        let mut refused = Vec::new();
        let mut seen_now = BTreeMap::new();
        for (path, stamp) in known {
            let seen = see(path);
            let is_settled = self.last.get(path) == Some(&seen);
            let is_new = seen.as_ref().ok() != stamp.as_ref();
            seen_now.insert(path.clone(), seen.clone());
            if !is_new {
                self.refused.remove(path);
                continue;
            }
            if !is_settled || self.refused.get(path) == Some(&seen) {
                continue;
            }
            match list_file::read(path) {
                Ok(contents) => {
                    self.refused.remove(path);
                    changed.push(Arc::new(contents));
                }
                Err(errors) => {
                    self.refused.insert(path.clone(), seen);
                    refused.push((path.clone(), errors));
                }
            }
        }
        self.last = seen_now;
        self.refused.retain(|path, _| self.last.contains_key(path));
        let mut reread = Reread {
            before: WithFiles::new(),
            after: WithFiles::new(),
            refused,
        };
        for (vip, before) in lists {
            let has_changed =
                |file: &Arc<Contents>| changed.iter().any(|new| new.path == file.path);
            if !before.files().any(has_changed) {
                continue;
            }
            match before.with_files(&changed) {
                Ok(after) => {
                    reread.before.insert(vip.clone(), before.clone());
                    reread.after.insert(vip.clone(), after);
                }
                Err(errors) => {
                    for file in before.files().filter(|file| has_changed(file)) {
                        if let Some(seen) = self.last.get(&file.path) {
                            self.refused.insert(file.path.clone(), seen.clone());
                        }
                    }
                    let path = before.allow.file.as_ref().map(|file| file.path.clone());
                    reread.refused.push((path.unwrap_or_default(), errors));
                }
            }
        }
        let is_something = !reread.after.is_empty() || !reread.refused.is_empty();
        is_something.then_some(reread)
    }
}

#[cfg(test)]
mod tests;
