//! What another configuration would change: VIPs, backends, and how many slots move. Pure, and worked out from the
//! same tables that would be swapped in.

mod checks;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::slot::SLOTS;
use serde::{Deserialize, Serialize};

use super::{
    ids::Ids,
    overrides::Overrides,
    plan::Held,
    seed::Keys,
    services::Services,
    wanted::{Error, Inputs, Standing, Wanted, WantedVip},
};
use crate::config::{Announcing, Backend, Config, Fleet, List, Lists, Node, Vip};
use checks::CHECKS;

/// What a configuration is held against.
#[derive(Clone)]
pub struct Basis {
    /// The configuration in force, as it was read, with the VIPs of Services.
    pub file: Config,
    /// What Services add to it, and to the next one.
    pub services: Services,
    /// What commands have changed of it, and of the next one.
    pub overrides: Overrides,
    /// What the data plane holds.
    pub held: Held,
    /// Who has which id.
    pub ids: Ids,
}

/// What would change. Field names are stable: scripts read them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Preview {
    /// Keys of `[node]` with other values.
    pub node: Vec<Difference>,
    /// VIPs that would not be as they are, in the new configuration's order, then those that go.
    pub vips: Vec<VipPreview>,
}

/// A VIP that would not be as it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct VipPreview {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: Kind,
    /// Keys with other values.
    pub differences: Vec<Difference>,
    /// Backends that would not be as they are, by address.
    pub backends: Vec<BackendPreview>,
    /// Slots, of 65,536, whose flows would go to another backend or to none.
    pub moved_slots: u32,
    /// The same in percent.
    pub moved_percent: f64,
}

/// A backend that would not be as it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct BackendPreview {
    /// Its address.
    #[schema(value_type = String)]
    pub address: std::net::IpAddr,
    /// What becomes of it.
    pub change: Kind,
    /// Keys with other values.
    pub differences: Vec<Difference>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It is another.
    Changed,
}

/// A key with another value.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// Its value now.
    pub from: String,
    /// Its value then.
    pub to: String,
}

/// A key's name, and its value as a person would write it.
type Field<T> = (&'static str, fn(&T) -> String);

const NODE: &[Field<Node>] = &[
    ("name", |node| node.name.clone()),
    ("interfaces", |node| node.interfaces.join(" ")),
    ("on_exit", |node| word(node.on_exit)),
    ("encap_source", |node| {
        let source = node.encap_source;
        let v4 = source.v4.map(|address| address.to_string());
        let v6 = source.v6.map(|address| address.to_string());
        v4.into_iter().chain(v6).collect::<Vec<_>>().join(" ")
    }),
    ("gue_port", |node| node.gue_port.to_string()),
    ("peers", |node| {
        let peers = node.peers.iter().map(ToString::to_string);
        peers.collect::<Vec<_>>().join(" ")
    }),
];

const ANNOUNCE: &[Field<Announcing>] = &[
    ("announce.hold_down", |announce| time(announce.hold_down)),
    ("announce.dead_daemon_hold", |announce| {
        announce
            .dead_daemon_hold
            .map_or_else(|| "off".to_owned(), time)
    }),
    ("announce.withdraw_delay", |announce| {
        announce
            .withdraw_delay
            .map_or_else(|| "off".to_owned(), time)
    }),
];

const FLEET: &[Field<Fleet>] = &[("fleet.peers", |fleet| {
    let peers = fleet.peers.iter().map(ToString::to_string);
    peers.collect::<Vec<_>>().join(" ")
})];

const ACCESS: &[Field<Lists>] = &[
    ("access.allow", |lists| list(&lists.allow)),
    ("access.deny", |lists| list(&lists.deny)),
];

const VIP: &[Field<Vip>] = &[
    ("address", |vip| vip.address.to_string()),
    ("port", |vip| vip.port.to_string()),
    ("protocol", |vip| word(vip.protocol)),
    ("table", |vip| word(vip.table)),
    ("affinity", |vip| word(vip.affinity)),
    ("announce", |vip| word(vip.announce)),
    ("min_healthy", |vip| vip.min_healthy.to_string()),
    ("announce_at_start", |vip| vip.announce_at_start.to_string()),
    ("allow", |vip| list(&vip.access.allow)),
    ("deny", |vip| list(&vip.access.deny)),
    ("move_window", |vip| time(vip.flows.move_window)),
    ("flow_idle", |vip| time(vip.flows.flow_idle)),
    ("drain_timeout", |vip| {
        vip.flows
            .drain_timeout
            .map_or_else(|| "off".to_owned(), time)
    }),
    ("slow_start", |vip| {
        vip.flows.slow_start.map(time).unwrap_or_default()
    }),
];

/// A length of time as the file has it.
fn time(time: std::time::Duration) -> String {
    humantime::format_duration(time).to_string()
}

const BACKEND: &[Field<Backend>] = &[
    ("weight", |backend| backend.weight.to_string()),
    ("forward", |backend| word(backend.forward)),
    ("mac", |backend| {
        backend.mac.map(super::mac_text).unwrap_or_default()
    }),
];

impl Basis {
    /// What `next` would change.
    ///
    /// # Errors
    /// The maps cannot hold it.
    pub fn preview(&self, next: &Config) -> Result<Preview, Error> {
        let (next, _) = &self.services.beside(next);
        let keys = [&self.file, next].map(|config| Keys::derive(config.node.seed.expose()));
        let [keys_now, keys_then] = &keys;
        let now = self.wanted(&self.file, keys_now)?;
        let then = self.wanted(next, keys_then)?;
        let is_same_seed = self.file.node.seed == next.node.seed;
        let mut node = differences(NODE, &self.file.node, &next.node);
        if !is_same_seed {
            node.push(Difference {
                key: "seed".to_owned(),
                from: "a secret".to_owned(),
                to: "another".to_owned(),
            });
        }
        node.extend(differences(FLEET, &self.file.fleet, &next.fleet));
        node.extend(differences(ANNOUNCE, &self.file.announce, &next.announce));
        node.extend(differences(ACCESS, &self.file.access, &next.access));
        let before: BTreeMap<_, _> = by_name(&self.file, &now).collect();
        let mut vips: Vec<_> = by_name(next, &then)
            .filter_map(|(name, after)| match before.get(name) {
                Some(before) => changed(*before, after, is_same_seed),
                None => Some(whole(Kind::Added, after.0, 0)),
            })
            .collect();
        let names: BTreeSet<_> = next.vips.iter().map(|vip| vip.name.as_str()).collect();
        let gone = self
            .file
            .vips
            .iter()
            .filter(|vip| !names.contains(vip.name.as_str()));
        vips.extend(gone.map(|vip| whole(Kind::Removed, vip, SLOTS as u32)));
        Ok(Preview { node, vips })
    }

    /// What the data plane should hold, as far as tables go: ways to backends are left out.
    fn wanted(&self, file: &Config, keys: &Keys) -> Result<Wanted, Error> {
        let config = self.overrides.apply(file);
        let inputs = Inputs {
            config: &config,
            keys,
            ports: &[],
            next_hops: &BTreeMap::new(),
            locals: &BTreeSet::new(),
            standing: &Standing::default(),
            cpus: 1,
        };
        Wanted::new(&inputs, &self.held, &mut self.ids.clone())
    }
}

/// VIPs as they are configured and as they are wanted, which is in the same order.
fn by_name<'a>(
    config: &'a Config,
    wanted: &'a Wanted,
) -> impl Iterator<Item = (&'a str, (&'a Vip, &'a WantedVip))> {
    let vips = config.vips.iter().zip(&wanted.vips);
    vips.map(|pair| (pair.0.name.as_str(), pair))
}

/// A list, in short where it is long.
fn list(list: &List) -> String {
    const SHOWN: usize = 8;
    let own = list.prefixes.iter().take(SHOWN).map(ToString::to_string);
    let more = list.prefixes.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("and {more} more"));
    let file = list.file.as_ref().map(|file| {
        let path = file.path.display();
        format!("{} of {path}", file.prefixes.len())
    });
    let parts: Vec<_> = own.chain(more).chain(file).collect();
    parts.join(" ")
}

fn changed(
    (before, table_before): (&Vip, &WantedVip),
    (after, table_after): (&Vip, &WantedVip),
    is_same_seed: bool,
) -> Option<VipPreview> {
    let mut differences = differences(VIP, before, after);
    differences.extend(self::differences(CHECKS, before, after));
    let backends = backends(before, after);
    // Another hash, or another service: then slots that agree say nothing of flows.
    let is_comparable = is_same_seed
        && table_before.entry.key == table_after.entry.key
        && before.affinity == after.affinity;
    let owners = table_before.table.owners().zip(table_after.table.owners());
    let moved = owners.filter(|(from, to)| from.is_some() && !(is_comparable && from == to));
    let moved_slots = moved.count() as u32;
    if differences.is_empty() && backends.is_empty() && moved_slots == 0 {
        return None;
    }
    Some(VipPreview {
        name: after.name.clone(),
        change: Kind::Changed,
        differences,
        backends,
        moved_slots,
        moved_percent: percent(moved_slots),
    })
}

/// A VIP that comes or goes with all of its backends.
fn whole(change: Kind, vip: &Vip, moved_slots: u32) -> VipPreview {
    let mut backends: Vec<_> = vip
        .backends
        .iter()
        .map(|backend| BackendPreview {
            address: backend.address,
            change,
            differences: Vec::new(),
        })
        .collect();
    backends.sort_by_key(|backend| backend.address);
    VipPreview {
        name: vip.name.clone(),
        change,
        differences: Vec::new(),
        backends,
        moved_slots,
        moved_percent: percent(moved_slots),
    }
}

fn backends(before: &Vip, after: &Vip) -> Vec<BackendPreview> {
    let by_address = |vip: &Vip| -> BTreeMap<_, _> {
        let backends = vip.backends.iter();
        backends.map(|b| (b.address, b.clone())).collect()
    };
    let (before, after) = (by_address(before), by_address(after));
    let addresses: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let changes = addresses.into_iter().filter_map(|address| {
        let (change, differences) = match (before.get(&address), after.get(&address)) {
            (Some(before), Some(after)) => (Kind::Changed, differences(BACKEND, before, after)),
            (None, _) => (Kind::Added, Vec::new()),
            (_, None) => (Kind::Removed, Vec::new()),
        };
        let is_one = change != Kind::Changed || !differences.is_empty();
        is_one.then_some(BackendPreview {
            address,
            change,
            differences,
        })
    });
    changes.collect()
}

fn differences<T>(fields: &[Field<T>], before: &T, after: &T) -> Vec<Difference> {
    let differences = fields.iter().filter_map(|(key, show)| {
        let (from, to) = (show(before), show(after));
        (from != to).then(|| Difference {
            key: (*key).to_owned(),
            from,
            to,
        })
    });
    differences.collect()
}

/// A word of the configuration, which is its variant in small letters.
fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// Slots as a share of all, to a tenth.
fn percent(slots: u32) -> f64 {
    let permille = (u64::from(slots) * 1000).div_ceil(SLOTS as u64) as u32;
    f64::from(permille) / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(seed: &str, vips: &str) -> Config {
        let text = format!("[node]\ninterfaces = [\"eth0\"]\nseed = \"{seed}\"\n{vips}");
        Config::parse(&text, "f").unwrap()
    }

    fn vip(name: &str, port: u16, backends: &[(u8, u16)]) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "[[vip]]\nname = \"{name}\"\naddress = \"203.0.113.10\"\nport = {port}\nprotocol = \"tcp\"\n"
        );
        for (host, weight) in backends {
            writeln!(
                text,
                "[[vip.backend]]\naddress = \"10.0.0.{host}\"\nweight = {weight}"
            )
            .unwrap();
        }
        text
    }

    fn preview(now: Config, next: &Config) -> Preview {
        let basis = Basis {
            file: now,
            services: Services::default(),
            overrides: Overrides::default(),
            held: Held::default(),
            ids: Ids::default(),
        };
        basis.preview(next).unwrap()
    }

    const THREE: [(u8, u16); 3] = [(1, 100), (2, 100), (3, 100)];

    #[test]
    fn the_same_changes_nothing() {
        let text = vip("web", 80, &THREE);
        let same = preview(config("x", &text), &config("x", &text));
        assert_eq!(same, Preview::default());
    }

    #[test]
    fn a_backend_that_goes_moves_its_share() {
        let next = vip("web", 80, &[(1, 100), (2, 50)]) + &vip("tls", 443, &THREE);
        let old = vip("web", 80, &THREE) + &vip("dns", 53, &THREE);
        let found = preview(config("x", &old), &config("x", &next));
        let kinds: Vec<_> = found
            .vips
            .iter()
            .map(|v| (v.name.as_str(), v.change))
            .collect();
        assert_eq!(
            kinds,
            [
                ("web", Kind::Changed),
                ("tls", Kind::Added),
                ("dns", Kind::Removed)
            ]
        );
        let web = &found.vips[0];
        // A third has to move with the backend that goes, and a few more with the weight.
        assert!((33.3..50.0).contains(&web.moved_percent), "{web:?}");
        let changes: Vec<_> = web
            .backends
            .iter()
            .map(|b| (b.address.to_string(), b.change))
            .collect();
        assert_eq!(
            changes,
            [
                ("10.0.0.2".to_owned(), Kind::Changed),
                ("10.0.0.3".to_owned(), Kind::Removed)
            ]
        );
        let weight = &web.backends[0].differences[0];
        assert_eq!((weight.from.as_str(), weight.to.as_str()), ("100", "50"));
        assert_eq!(
            (found.vips[1].moved_slots, found.vips[2].moved_slots),
            (0, 65_536)
        );
    }

    #[test]
    fn lists_that_differ_are_told_and_move_nothing() {
        let text = vip("web", 80, &THREE);
        let next = text.replace("port = 80", "port = 80\nallow = [\"10.0.0.0/8\"]");
        let next = format!("[access]\ndeny = [\"192.0.2.7\"]\n{next}");
        let found = preview(config("x", &text), &config("x", &next));
        let told = |difference: &Difference| {
            let Difference { key, from, to } = difference;
            format!("{key}: {from:?} to {to:?}")
        };
        let node: Vec<_> = found.node.iter().map(told).collect();
        assert_eq!(node, ["access.deny: \"\" to \"192.0.2.7/32\""]);
        let web: Vec<_> = found.vips[0].differences.iter().map(told).collect();
        assert_eq!(web, ["allow: \"\" to \"10.0.0.0/8\""]);
        assert_eq!(found.vips[0].moved_slots, 0);
    }

    #[test]
    fn what_hashes_flows_anew_moves_all() {
        let text = vip("web", 80, &THREE);
        let next = text.replace("port = 80", "port = 80\naffinity = \"source\"");
        let moved = |next: &Config| preview(config("x", &text), next).vips[0].moved_slots;
        assert_eq!(moved(&config("x", &next)), 65_536);
        assert_eq!(moved(&config("y", &text)), 65_536);
        assert_eq!(moved(&config("x", &vip("web", 81, &THREE))), 65_536);
        let secrets = format!(
            "{:?}",
            preview(config("seed-x", &text), &config("seed-y", &text))
        );
        assert!(!secrets.contains("seed-y"), "{secrets}");
    }

    #[test]
    fn keys_of_health_checks_are_told_as_the_file_has_them() {
        let checked =
            |keys: &str| vip("web", 80, &THREE).replace("port = 80", &format!("port = 80\n{keys}"));
        let now = checked("health = { type = \"tcp\" }");
        let next = checked(
            "health = { type = \"http\", path = \"/healthz\", interval = \"5s\", timeout = \"1s\", \
             expect_status = \"200, 301-308\" }",
        );
        let found = preview(config("x", &now), &config("x", &next));
        let told = found.vips[0].differences.iter();
        let told: Vec<_> = told
            .map(|d| format!("{} {:?} {:?}", d.key, d.from, d.to))
            .collect();
        assert_eq!(
            told,
            [
                r#"health.type "tcp" "http""#,
                r#"health.path "" "/healthz""#,
                r#"health.host "" "203.0.113.10""#,
                r#"health.expect_status "" "200,301-308""#,
                r#"health.interval "2s" "5s""#,
            ]
        );
        assert_eq!(found.vips[0].moved_slots, 0);
        let none = preview(config("x", &now), &config("x", &vip("web", 80, &THREE)));
        let kind = &none.vips[0].differences[0];
        assert_eq!((kind.from.as_str(), kind.to.as_str()), ("tcp", "none"));
    }

    #[test]
    fn another_mode_moves_no_flow() {
        let now = vip("web", 80, &THREE);
        let next = now.replace("weight = 100", "weight = 100\nforward = \"gue\"");
        let head = "x\"\nencap_source = [\"10.0.0.250\"]\nname = \"lb";
        let found = preview(config(head, &now), &config(head, &next));
        assert_eq!(found.vips[0].moved_slots, 0);
        assert_eq!(found.vips[0].backends.len(), 3);
    }

    #[test]
    fn what_commands_have_drained_moves_nothing_when_it_goes() {
        use super::super::overrides::{BackendName, Override};
        let now = config("x", &vip("web", 80, &THREE));
        let mut overrides = Overrides::default();
        let name = BackendName {
            vip: "web".to_owned(),
            backend: "10.0.0.3".parse().unwrap(),
        };
        let drained = Override {
            is_drained: true,
            weight: None,
        };
        overrides.set(name, drained);
        let basis = Basis {
            file: now,
            services: Services::default(),
            overrides,
            held: Held::default(),
            ids: Ids::default(),
        };
        let next = config("x", &vip("web", 80, &THREE[..2]));
        let found = basis.preview(&next).unwrap();
        assert_eq!(found.vips[0].moved_slots, 0);
        assert_eq!(found.vips[0].backends[0].change, Kind::Removed);
    }
}
