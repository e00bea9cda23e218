//! From a file to a [`Config`], or to everything that is wrong with the file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    Config, announce,
    error::Errors,
    fleet, host, keys, kubernetes,
    list_file::Files,
    lists::{self, Lists},
    node, redis,
    section::Section,
    source::Report,
    vip,
};

/// Where maps, programs and links are pinned unless the file says otherwise.
pub const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/weir";

/// The API's socket unless the file says otherwise.
pub const DEFAULT_API_SOCKET: &str = "/run/weir/weir.sock";

/// Where commands are kept unless the file says otherwise.
pub const DEFAULT_STATE_FILE: &str = "/var/lib/weir/state.json";

/// How far a configuration is held against the host that reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The interfaces must exist and the seed file must hold a seed.
    Host,
    /// Only the file itself counts: a check on another machine.
    Offline,
}

/// Which of the interfaces must exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Needed {
    /// None.
    None,
    /// One: a daemon runs on it and waits for the others.
    One,
    /// All of them.
    All,
}

/// What a valid configuration amounts to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// The node's name.
    pub node: String,
    /// How many VIPs there are.
    pub vips: usize,
    /// How many backends all VIPs have together.
    pub backends: usize,
    /// Memory of the lookup tables, in bytes.
    pub table_bytes: usize,
    /// How many prefixes all access lists have together.
    pub prefixes: usize,
}

/// Where the running or left-behind data plane of a configuration is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Paths {
    /// Directory of the pins.
    pub pin_path: PathBuf,
    /// The API's socket.
    pub api_socket: PathBuf,
}

impl Config {
    /// Reads a file for use on this host: the seed file is read, and one of the interfaces at least must exist.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path) -> Result<Self, Errors> {
        with_text(path, |file, text| {
            read(text, file, Scope::Host, Needed::One)
        })
    }

    /// Reads the text of a file for use on this host, as [`Self::load`] does; a relative path in it is relative
    /// to the file's directory.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load_text(text: &str, path: &Path) -> Result<Self, Errors> {
        read(text, &path.display().to_string(), Scope::Host, Needed::One)
    }

    /// Reads a configuration from text; the seed file is read, but no interface is looked for.
    ///
    /// # Errors
    /// Everything that is wrong, at once; places are named with `file_name`.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Errors> {
        read(text, file_name, Scope::Host, Needed::None)
    }

    /// Reads the text of a file that is for another host: no interface, group or seed file is looked for here.
    ///
    /// # Errors
    /// Everything that is wrong, at once; places are named with `file_name`.
    pub fn parse_offline(text: &str, file_name: &str) -> Result<Self, Errors> {
        read(text, file_name, Scope::Offline, Needed::None)
    }
}

/// Checks a file and says what it amounts to.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn check(path: &Path, scope: Scope) -> Result<Summary, Errors> {
    let config = with_text(path, |file, text| {
        let needed = match scope {
            Scope::Host => Needed::All,
            Scope::Offline => Needed::None,
        };
        read(text, file, scope, needed)
    })?;
    let listed = config.lists().map(|(_, lists)| lists.entries.len());
    Ok(Summary {
        prefixes: listed.sum(),
        node: config.node.name,
        vips: config.vips.len(),
        backends: config.vips.iter().map(|vip| vip.backends.len()).sum(),
        table_bytes: config.vips.len() * size_of::<lb_common::slot::SlotTable>(),
    })
}

/// Reads only where a configuration's data plane is: usable even if the rest of the file is not valid.
///
/// # Errors
/// The file cannot be read, is not TOML, or has wrong paths.
pub fn paths(path: &Path) -> Result<Paths, Errors> {
    with_text(path, |file, text| {
        let (document, mut report) = document(text, file)?;
        let table = document.get("node").and_then(|node| {
            let at = node.span().start;
            node.get_ref().as_table().map(|table| (table, at))
        });
        let empty = DeTable::new();
        let (table, at) = table.unwrap_or((&empty, 0));
        let mut unheeded = Report::new(file, text);
        let section = Section::new("node".to_owned(), at, table, &keys::NODE, &mut unheeded);
        let pin_path = node::pin_path(&section, &mut report);
        let api_socket = node::api_socket(&section, &mut report);
        let paths = pin_path
            .zip(api_socket)
            .map(|(pin_path, api_socket)| Paths {
                pin_path,
                api_socket,
            });
        report.finish(paths)
    })
}

fn with_text<T>(
    path: &Path,
    read: impl FnOnce(&str, &str) -> Result<T, Errors>,
) -> Result<T, Errors> {
    let text = fs::read_to_string(path).map_err(|source| Errors::Read {
        path: path.to_owned(),
        source,
    })?;
    read(&path.display().to_string(), &text)
}

fn read(text: &str, file: &str, scope: Scope, needed: Needed) -> Result<Config, Errors> {
    const WANTED: &str = "a section `[node]`";
    const HELP: &str = "begin the file with `[node]`, `interfaces = [\"eth0\"]` and `seed_file = \"/etc/weir/seed\"`";
    let (document, mut report) = document(text, file)?;
    let top = Section::new(String::new(), 0, &document, &keys::FILE, &mut report);
    let directory = Path::new(file).parent().unwrap_or(Path::new(""));

    let settings = top
        .required("node", WANTED, HELP, &mut report)
        .and_then(|field| field.section(WANTED, HELP, &keys::NODE, &mut report))
        .map(|section| {
            let settings = node::read(&section, directory, scope, &mut report);
            host::check(&settings.interfaces, needed, &mut report);
            settings
        });
    let encap_source = settings.as_ref().and_then(|settings| settings.encap_source);
    let redis = redis::read(&top, directory, scope, &mut report);
    let announce = announce::read(&top, &mut report);
    let around = lists::Around { directory, scope };
    let mut files = Files::default();
    let access = access(&top, &around, &mut files, &mut report);
    let vips = vip::read_all(
        &top,
        encap_source,
        (top.field("redis").is_some(), needed),
        (&around, &mut files),
        &mut report,
    );
    let own = vips.iter().flatten().map(|vip| &vip.access);
    let listed = access.iter().chain(own).map(|lists| lists.entries.len());
    lists::check_total(listed.sum(), &mut report);
    let node = settings.and_then(|settings| settings.node);
    let metrics = node.as_ref().map(|node| node.metrics_listen);
    let fleet = fleet::read(&top, metrics, &mut report);
    let name = node.as_ref().map(|node| node.name.as_str());
    let kubernetes = kubernetes::read(&top, name, encap_source, &mut report);
    let config = || {
        Some(Config {
            node: node?,
            redis: redis?.0,
            fleet: fleet?,
            kubernetes: kubernetes?.0,
            announce: announce?,
            access: access?,
            vips: vips?,
        })
    };
    let config = config();
    report.finish(config)
}

/// `[access]`, where the file has it.
fn access(
    top: &Section<'_>,
    around: &lists::Around<'_>,
    files: &mut Files,
    report: &mut Report<'_>,
) -> Option<Lists> {
    const WANTED: &str = "a section `[access]`";
    const HELP: &str = "write `[access]`, and below it `deny = [\"192.0.2.0/24\"]`";
    let Some(field) = top.field("access") else {
        return Some(Lists::default());
    };
    let section = field.section(WANTED, HELP, &keys::ACCESS, report)?;
    lists::read(&section, None, around, files, report)
}

/// The TOML tree of a text, with a place for what is wrong with it; or what makes it no TOML.
pub(super) fn document<'t>(
    text: &'t str,
    file: &'t str,
) -> Result<(DeTable<'t>, Report<'t>), Errors> {
    let mut report = Report::new(file, text);
    let (document, mut errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok((document.into_inner(), report));
    }
    // After an error the parser goes on as well as it can: only its first finding of each line counts, and
    // where it lost track of what belongs together, only the first of all.
    let is_lost = errors
        .iter()
        .any(|error| error.message().contains("unclosed"));
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    errors.sort_by_key(place);
    let mut lines = BTreeSet::new();
    for error in errors {
        let message = error.message();
        let at = place(&error);
        if (is_lost && !lines.is_empty()) || !lines.insert(report.place(at).0) {
            continue;
        }
        let help = if message.contains("quoted") {
            "put the value in double quotes"
        } else if message.contains("duplicate") {
            "take one of the two out: every key once in a section"
        } else {
            "mend the line, or the one before it: strings in double quotes, lists and sections in brackets"
        };
        let found = format!("invalid TOML ({message})");
        report.add(
            at,
            report.guess_key(at),
            found,
            "TOML (https://toml.io)",
            help,
        );
    }
    report.finish(None)
}
