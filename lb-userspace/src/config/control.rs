//! Reads the keys of `[node]` that say who may command the daemon, and where commands are kept.

use std::path::PathBuf;

use nix::unistd;

use super::{
    Group,
    load::{DEFAULT_STATE_FILE, Scope},
    section::{Field, Section},
    source::Report,
};

/// `state_file`, or its default.
pub(super) fn state_file(section: &Section<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    const WANTED: &str = "an absolute path of a file";
    let Some(field) = section.field("state_file") else {
        return Some(PathBuf::from(DEFAULT_STATE_FILE));
    };
    let help = format!("write `state_file = \"{DEFAULT_STATE_FILE}\"`");
    field.parse(WANTED, &help, report, |text| {
        let path = PathBuf::from(text);
        let is_file = path.is_absolute() && path.file_name().is_some() && !text.ends_with('/');
        is_file.then_some(path)
    })
}

/// Who may use the API, besides root.
pub(super) struct Groups {
    pub(super) readers: Option<Group>,
    pub(super) admins: Option<Group>,
}

/// `api_group` and `api_admin_group`.
pub(super) fn groups(
    section: &Section<'_>,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Groups> {
    let mut group = |key| {
        let field = section.field(key);
        field.map(|field| known(&field, scope, report))
    };
    let (readers, admins) = (group("api_group"), group("api_admin_group"));
    if readers == Some(None) || admins == Some(None) {
        return None;
    }
    Some(Groups {
        readers: readers.flatten(),
        admins: admins.flatten(),
    })
}

/// A group that this host has. Groups may come from elsewhere than /etc/group: the host's own name service is
/// asked.
fn known(field: &Field<'_>, scope: Scope, report: &mut Report<'_>) -> Option<Group> {
    const WANTED: &str = "the name of a group of this host";
    let help = format!(
        "make it with `groupadd --system weir` and write `{} = \"weir\"`, or take the key out: then only root is let in",
        field.key
    );
    let name = field.parse(WANTED, &help, report, |text| {
        let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != ':');
        is_name.then(|| text.to_owned())
    })?;
    if scope == Scope::Offline {
        return Some(Group {
            name,
            id: Group::NOBODY,
        });
    }
    let found = match unistd::Group::from_name(&name) {
        Ok(Some(group)) => {
            let id = group.gid.as_raw();
            return Some(Group { name, id });
        }
        Ok(None) => format!("{name:?}, which this host does not have"),
        Err(error) => format!("{name:?}, which cannot be looked up ({error})"),
    };
    report.add(field.offset, &field.path, found, WANTED, help);
    None
}
