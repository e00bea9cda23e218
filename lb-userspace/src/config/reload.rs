//! What of a configuration cannot change while the daemon runs.

use std::path::Path;

use super::{Config, announce, error::Errors, kubernetes, load::document, source::Report};

/// A key's name, and what it is in a configuration, as a person would write it.
type Fixed = (&'static str, fn(&Config) -> String);

/// What the daemon takes at its start: it listens, pins and keeps state there, or lets people in by it.
const FIXED: &[Fixed] = &[
    ("xdp_mode", |config| quoted(config.node.xdp_mode.as_str())),
    ("pin_path", |config| quoted(config.node.pin_path.display())),
    ("api_socket", |config| {
        quoted(config.node.api_socket.display())
    }),
    ("metrics_listen", |config| {
        quoted(config.node.metrics_listen)
    }),
    ("state_file", |config| {
        quoted(config.node.state_file.display())
    }),
    ("api_group", |config| group(config.node.api_group.as_ref())),
    ("api_admin_group", |config| {
        group(config.node.api_admin_group.as_ref())
    }),
];

impl Config {
    /// Refuses `next`, read from `text`, where it differs in what a running daemon cannot change.
    ///
    /// # Errors
    /// Everything that it would have to change, at once.
    pub fn allows(&self, next: &Self, text: &str, path: &Path) -> Result<(), Errors> {
        const HELP: &str = "restart the daemon: meanwhile packets are forwarded, and it takes over what it finds; or write the old value back";
        let file = path.display().to_string();
        let mut report = Report::new(&file, text);
        let kubernetes = |config: &Self| kubernetes::shown(config.kubernetes.as_ref());
        let (running, found) = (kubernetes(self), kubernetes(next));
        if running != found {
            let wanted = format!("{running}: it cannot change while the daemon runs");
            report.add(section_place(text), "kubernetes", found, wanted, HELP);
        }
        announce::allows(self, next, text, &mut report);
        for (key, show) in FIXED {
            let (running, found) = (show(self), show(next));
            if running != found {
                let wanted = format!("{running}, which cannot change while the daemon runs");
                report.add(
                    place(text, &[key]),
                    format!("node.{key}"),
                    found,
                    wanted,
                    HELP,
                );
            }
        }
        report.finish(Some(()))
    }

    /// Refuses `next`, read from `text`, where it has new interfaces that do not exist. Old ones may be absent for a
    /// while: they are waited for.
    ///
    /// # Errors
    /// Every such interface.
    pub fn finds_interfaces_of(
        &self,
        next: &Self,
        text: &str,
        path: &Path,
        exists: impl Fn(&str) -> bool,
    ) -> Result<(), Errors> {
        let file = path.display().to_string();
        let mut report = Report::new(&file, text);
        let old = &self.node.interfaces;
        let new = next.node.interfaces.iter().enumerate();
        for (index, name) in new.filter(|(_, name)| !old.contains(name) && !exists(name)) {
            report.add(
                place(text, &["interfaces"]),
                format!("node.interfaces[{index}]"),
                format!("{name:?}, which this host does not have"),
                "an existing interface, or one that is configured already",
                "make the interface first; `ip -br link` lists what there is",
            );
        }
        report.finish(Some(()))
    }

    /// Refuses `next`, read from `text`, where its seed is another one.
    ///
    /// # Errors
    /// The seed's place; never its value.
    pub fn has_seed_of(&self, next: &Self, text: &str, path: &Path) -> Result<(), Errors> {
        let file = path.display().to_string();
        let mut report = Report::new(&file, text);
        if self.node.seed != next.node.seed {
            report.add(
                place(text, &["seed", "seed_file"]),
                "node.seed",
                "another seed than the running one",
                "the same seed: with a new one every flow goes to another backend",
                "write the old seed back; where every flow may break, `weir apply --force`",
            );
        }
        report.finish(Some(()))
    }
}

/// Where the first of some keys of `[node]` stands that is written at all; else where the section begins.
fn place(text: &str, keys: &[&str]) -> usize {
    let Ok((document, _)) = document(text, "") else {
        return 0;
    };
    let Some(node) = document.get("node") else {
        return 0;
    };
    let table = node.get_ref().as_table();
    let written = table.and_then(|table| keys.iter().find_map(|key| table.get(*key)));
    written.map_or(node.span().start, |value| value.span().start)
}

/// Where `[kubernetes]` begins; the file's beginning where there is none.
fn section_place(text: &str) -> usize {
    let Ok((document, _)) = document(text, "") else {
        return 0;
    };
    let section = document.get("kubernetes");
    section.map_or(0, |section| section.span().start)
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("{:?}", value.to_string())
}

fn group(group: Option<&super::Group>) -> String {
    group.map_or_else(|| "nothing".to_owned(), |group| format!("{:?}", group.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[node]\ninterfaces = [\"eth0\"]\n";

    fn config(rest: &str) -> (Config, String) {
        let text = format!("{HEAD}{rest}");
        (Config::parse(&text, "f").unwrap(), text)
    }

    #[test]
    fn names_every_key_that_cannot_change_with_its_line() {
        let (running, _) = config("seed = \"x\"\nname = \"a\"\n");
        let (next, text) = config(
            "seed = \"x\"\nname = \"b\"\non_exit = \"detach\"\napi_group = \"root\"\nstate_file = \"/x/state\"\nxdp_mode = \"native\"\n",
        );
        let errors = running.allows(&next, &text, Path::new("f")).unwrap_err();
        let found: Vec<_> = errors
            .findings()
            .iter()
            .map(|f| (f.key.as_str(), f.line, f.found.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("node.api_group", 6, "\"root\""),
                ("node.state_file", 7, "\"/x/state\""),
                ("node.xdp_mode", 8, "\"native\"")
            ]
        );
        // A key that is taken out is found where the section begins.
        let (_, old) = config("seed = \"x\"\n");
        let errors = next.allows(&running, &old, Path::new("f")).unwrap_err();
        assert!(errors.findings().iter().all(|f| f.line == 1), "{errors}");
        assert!(running.allows(&running, &old, Path::new("f")).is_ok());
    }

    #[test]
    fn a_new_interface_must_exist_and_an_old_one_may_be_away() {
        let (running, _) = config("seed = \"x\"\n");
        let text = "[node]\nseed = \"x\"\ninterfaces = [\"eth0\", \"eth7\"]\n";
        let next = Config::parse(text, "f").unwrap();
        assert!(running.allows(&next, text, Path::new("f")).is_ok());
        let find = |exists: fn(&str) -> bool| {
            running.finds_interfaces_of(&next, text, Path::new("f"), exists)
        };
        assert!(find(|_| true).is_ok());
        let said = find(|_| false).unwrap_err().to_string();
        assert!(
            said.starts_with("error: f:3:14: node.interfaces[1]: found \"eth7\""),
            "{said}"
        );
        assert_eq!(said.matches("error").count(), 1, "{said}");
    }

    #[test]
    fn a_new_seed_is_told_and_not_shown() {
        let (running, _) = config("seed = \"do-not-print\"\n");
        let (next, text) = config("seed = \"nor-print-this\"\n");
        assert!(running.allows(&next, &text, Path::new("f")).is_ok());
        let said = running
            .has_seed_of(&next, &text, Path::new("f"))
            .unwrap_err()
            .to_string();
        assert!(said.starts_with("error: f:3:8: node.seed: "), "{said}");
        assert!(!said.contains("print"), "{said}");
    }
}
