//! Access lists of the configuration: handed to the thread that writes them, and read again where their files change.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;

use super::Reconciler;
use crate::{
    api::What,
    config::Lists,
    dataplane::DataPlane,
    lists::watch::{Reread, with_files},
    model::{listed::Listed, wanted::vip_key},
};

/// Files that cannot be used as they are now, and why. What they held before still counts.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeMap<PathBuf, String>);

impl Refused {
    /// In sentences.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let problems = self.0.iter();
        problems.map(|(path, error)| {
            let path = path.display();
            format!("{path} has changed and cannot be used, so that what it held before still counts: {error}")
        })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// Has the access lists written before the first packet comes by a new program.
    pub(super) async fn load_lists(&mut self) -> anyhow::Result<()> {
        let ids = &mut self.ids;
        let listed = Listed::new(&self.desired.config, |vip| {
            let key = vip_key(vip);
            Some((ids.vip(key).ok()?, key))
        });
        self.lists.want(listed);
        self.files.watch(with_files(&self.desired.config));
        let written = self.lists.in_force().await;
        written.context("writing the access lists")
    }

    /// Follows a configuration that is in force.
    pub(super) fn watch_lists(&mut self) {
        let lists = with_files(&self.desired.config);
        let files = || lists.values().flat_map(Lists::files);
        self.refused_files
            .0
            .retain(|path, _| files().any(|file| file.path == *path));
        self.files.watch(lists);
    }

    /// Takes files that have changed, each list as a whole or not at all.
    pub(super) fn reread(&mut self, reread: Reread) {
        let Reread {
            before,
            after,
            refused,
        } = reread;
        for (path, errors) in refused {
            self.refuse_file(path, &errors);
        }
        let mut file = self.desired.read().clone();
        let mut taken = Vec::new();
        for (vip, lists) in after {
            let own = match &vip {
                None => Some(&mut file.access),
                Some(name) => file
                    .vips
                    .iter_mut()
                    .find(|vip| vip.name == *name)
                    .map(|vip| &mut vip.access),
            };
            // A configuration that has come meanwhile has read its own; the watcher looks again.
            let is_same = |own: &Lists| {
                let before = before.get(&vip);
                before.is_some_and(|before| std::sync::Arc::ptr_eq(&before.entries, &own.entries))
            };
            if let Some(own) = own.filter(|own| is_same(own)) {
                taken.extend(lists.files().cloned());
                *own = lists;
            }
        }
        if !taken.is_empty() {
            let next = self.desired.with_file(file);
            if let Err(refusal) = self.adopt(next, "file") {
                for contents in taken {
                    self.refuse_file(contents.path.clone(), &refusal);
                }
                return;
            }
            self.watch_lists();
        }
        taken.dedup_by_key(|contents| contents.path.clone());
        for contents in taken {
            self.refused_files.0.remove(&contents.path);
            let prefixes = contents.prefixes.len();
            tracing::info!(file = %contents.path.display(), prefixes, "a file of prefixes was read again");
            self.events.tell(What::ListRead {
                file: contents.path.clone(),
                prefixes: prefixes as u64,
            });
        }
    }

    fn refuse_file(&mut self, path: PathBuf, errors: &dyn std::fmt::Display) {
        let error = errors.to_string();
        tracing::warn!(file = %path.display(), error, "a file of prefixes has changed and cannot be used");
        self.events.tell(What::Refused {
            by: "a change of the file".to_owned(),
            file: path.clone(),
            error: error.clone(),
        });
        self.refused_files.0.insert(path, error);
    }
}
