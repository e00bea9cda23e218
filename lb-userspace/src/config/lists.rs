//! `allow`, `deny`, `allow_file` and `deny_file`, of a VIP or of `[access]` for all VIPs.

use std::{net::IpAddr, path::Path, sync::Arc};

use lb_common::access::MAX_LISTED;

use super::{
    Errors, Finding, Prefix,
    list_file::{self, Contents, Files, Use},
    load::Scope,
    section::{Field, Section},
    source::Report,
};

/// Access lists of one VIP, or of all VIPs together.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Who may send.
    pub allow: List,
    /// Who may not.
    pub deny: List,
    /// What both say, files included.
    pub entries: Arc<[Entry]>,
}

/// What one list is made of.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The prefixes in the configuration itself.
    pub prefixes: Vec<Prefix>,
    /// A file with more of them.
    pub file: Option<Arc<Contents>>,
}

/// One prefix of access lists. Sorted by prefix, each once: who is both allowed and denied is denied.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Entry {
    /// Whose packets.
    pub prefix: Prefix,
    /// Whether they may not pass.
    pub is_denied: bool,
}

impl List {
    /// Whether the configuration has this list at all.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        !self.prefixes.is_empty() || self.file.is_some()
    }

    /// How many prefixes it has, some perhaps twice.
    #[must_use]
    pub fn len(&self) -> usize {
        let file = self.file.as_ref().map_or(0, |file| file.prefixes.len());
        self.prefixes.len() + file
    }

    /// Whether it names nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its prefixes, in no order, some perhaps twice.
    fn all(&self) -> impl Iterator<Item = Prefix> {
        let file: &[Prefix] = self.file.as_ref().map_or(&[], |file| &file.prefixes);
        self.prefixes.iter().chain(file).copied()
    }
}

impl Lists {
    /// Whether there is any list.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.allow.is_given() || self.deny.is_given()
    }

    /// The files that they are read from.
    pub fn files(&self) -> impl Iterator<Item = &Arc<Contents>> {
        self.allow.file.iter().chain(&self.deny.file)
    }

    /// The same lists, with other contents of those of their files that `changed` has.
    ///
    /// # Errors
    /// An allow list would name nobody.
    pub fn with_files(&self, changed: &[Arc<Contents>]) -> Result<Self, Errors> {
        let follow = |list: &List| List {
            prefixes: list.prefixes.clone(),
            file: list.file.as_ref().map(|file| {
                let new = changed.iter().find(|new| new.path == file.path);
                Arc::clone(new.unwrap_or(file))
            }),
        };
        let lists = Self::new(follow(&self.allow), follow(&self.deny));
        match lists.allow.file.as_ref().filter(|_| lists.allow.is_empty()) {
            Some(file) => Err(Errors::Invalid(vec![allows_nobody(file)])),
            None => Ok(lists),
        }
    }

    fn new(allow: List, deny: List) -> Self {
        let denied = deny.all().map(|prefix| Entry {
            prefix,
            is_denied: true,
        });
        let allowed = allow.all().map(|prefix| Entry {
            prefix,
            is_denied: false,
        });
        let mut entries: Vec<_> = denied.chain(allowed).collect();
        // The denial first, so that it is the one that stays.
        entries.sort_unstable_by_key(|entry| (entry.prefix, !entry.is_denied));
        entries.dedup_by_key(|entry| entry.prefix);
        Self {
            entries: entries.into(),
            allow,
            deny,
        }
    }
}

/// What is known while the lists of a file are read.
pub(super) struct Around<'a> {
    /// Where relative paths begin.
    pub(super) directory: &'a Path,
    /// Whether the files are read.
    pub(super) scope: Scope,
}

/// Reads the four keys of a section. `vip` is the VIP's address: its own lists name its family.
pub(super) fn read(
    section: &Section<'_>,
    vip: Option<IpAddr>,
    around: &Around<'_>,
    files: &mut Files,
    report: &mut Report<'_>,
) -> Option<Lists> {
    let mut list = |key: &str, what: Use| {
        let prefixes = match section.field(key) {
            Some(field) => prefixes(&field, vip, report),
            None => Some(Vec::new()),
        };
        let file = match section.field(&format!("{key}_file")) {
            Some(field) => file(&field, what, around, files, report).map(Some),
            None => Some(None),
        };
        Some(List {
            prefixes: prefixes?,
            file: file?,
        })
    };
    let allow = list("allow", Use::Allow);
    let deny = list("deny", Use::Deny);
    Some(Lists::new(allow?, deny?))
}

/// Refuses more prefixes than the maps have room for.
pub(super) fn check_total(prefixes: usize, report: &mut Report<'_>) {
    if prefixes > MAX_LISTED {
        report.add(
            0,
            "access",
            format!("{prefixes} prefixes in all lists together"),
            format!("at most {MAX_LISTED}"),
            "join neighbouring prefixes, or move what several VIPs share to `[access]`",
        );
    }
}

/// The prefixes that are written in the configuration itself.
fn prefixes(
    field: &Field<'_>,
    vip: Option<IpAddr>,
    report: &mut Report<'_>,
) -> Option<Vec<Prefix>> {
    const WANTED: &str = "a list of addresses or prefixes";
    let help = format!(
        "write `{} = [\"192.0.2.0/24\", \"2001:db8::/32\"]`",
        field.key
    );
    let items = field.items(WANTED, &help, report)?;
    if items.is_empty() {
        let help = format!("take `{}` out, or name somebody", field.key);
        report.add(field.offset, &field.path, "an empty list", WANTED, help);
        return None;
    }
    let mut prefixes = Some(Vec::with_capacity(items.len()));
    for item in items {
        let prefix = prefix(&item, vip, report);
        prefixes = prefixes.zip(prefix).map(|(mut prefixes, prefix)| {
            prefixes.push(prefix);
            prefixes
        });
    }
    prefixes
}

fn prefix(item: &Field<'_>, vip: Option<IpAddr>, report: &mut Report<'_>) -> Option<Prefix> {
    const WANTED: &str = "an address or a prefix";
    let Some(text) = item.text() else {
        item.refuse(WANTED, "write it as a string: `\"192.0.2.0/24\"`", report);
        return None;
    };
    let prefix: Prefix = match text.parse() {
        Ok(prefix) => prefix,
        Err(wrong) => {
            let found = format!("{text:?}, {wrong}");
            report.add(item.offset, &item.path, found, WANTED, wrong.help());
            return None;
        }
    };
    if vip.is_some_and(|vip| vip.is_ipv4() != prefix.is_v4()) {
        let (family, other) = if prefix.is_v4() {
            ("IPv6", "IPv4")
        } else {
            ("IPv4", "IPv6")
        };
        report.add(
            item.offset,
            &item.path,
            format!("{text:?}, of {other}"),
            format!("an {family} prefix, as the VIP's address"),
            "take it out: no client of this VIP can have such an address",
        );
        return None;
    }
    Some(prefix)
}

/// The file that a key names.
fn file(
    field: &Field<'_>,
    what: Use,
    around: &Around<'_>,
    files: &mut Files,
    report: &mut Report<'_>,
) -> Option<Arc<Contents>> {
    const WANTED: &str = "the path of a readable file with one prefix a line";
    let help = format!(
        "write `{} = \"/etc/weir/{}.txt\"`",
        field.key,
        what.as_str()
    );
    let path = field.parse(WANTED, &help, report, |text| {
        (!text.is_empty()).then(|| around.directory.join(text))
    })?;
    if around.scope == Scope::Offline {
        return Some(Arc::new(Contents::unread(path)));
    }
    match files.read(&path) {
        Ok(contents) if contents.prefixes.is_empty() && what == Use::Allow => {
            report.add_finding(field.offset, allows_nobody(&contents));
            None
        }
        Ok(contents) => Some(contents),
        Err(Errors::Read { path, source }) => {
            let found = format!("{:?} ({source})", path.display().to_string());
            let help = "give a file that this user may read; an empty one denies nobody";
            report.add(field.offset, &field.path, found, WANTED, help);
            None
        }
        Err(Errors::Invalid(findings)) => {
            for finding in findings {
                report.add_finding(field.offset, finding);
            }
            None
        }
    }
}

fn allows_nobody(file: &Contents) -> Finding {
    Finding {
        file: file.path.display().to_string(),
        line: 1,
        column: 1,
        key: list_file::KEY.to_owned(),
        found: "no prefix at all".to_owned(),
        wanted: "a prefix or more: whom an allow list does not name is denied".to_owned(),
        help: "fill the file, or take `allow_file` out of the configuration".to_owned(),
    }
}

#[cfg(test)]
mod tests;
