//! The keys of every section: what this version reads, what DESIGN has for later ones.

/// The keys of one section.
pub(super) struct Keys {
    /// What this version reads.
    pub(super) known: &'static [&'static str],
    /// What a later version will read.
    pub(super) later: &'static [&'static str],
}

pub(super) const FILE: Keys = Keys {
    known: &[
        "node",
        "redis",
        "fleet",
        "kubernetes",
        "announce",
        "access",
        "vip",
    ],
    later: &[],
};

/// Of a text that holds a VIP and nothing else.
pub(super) const SINGLE: Keys = Keys {
    known: &["vip"],
    later: &[],
};

pub(super) const NODE: Keys = Keys {
    known: &[
        "name",
        "interfaces",
        "xdp_mode",
        "seed",
        "seed_file",
        "pin_path",
        "api_socket",
        "metrics_listen",
        "on_exit",
        "encap_source",
        "gue_port",
        "peers",
        "state_file",
        "api_group",
        "api_admin_group",
        "max_pins",
        "max_sources",
    ],
    later: &["max_vips", "max_backends"],
};

pub(super) const REDIS: Keys = Keys {
    known: &["url", "url_file", "fleet", "period", "timeout"],
    later: &[],
};

pub(super) const FLEET: Keys = Keys {
    known: &["peers"],
    later: &[],
};

pub(super) const ANNOUNCE: Keys = Keys {
    known: &[
        "table",
        "protocol",
        "hold_down",
        "dead_daemon_hold",
        "withdraw_delay",
    ],
    later: &[],
};

pub(super) const KUBERNETES: Keys = Keys {
    known: &[
        "class",
        "classless",
        "kubeconfig",
        "node",
        "namespace",
        "lease",
        "mode",
        "forward",
        "table",
        "announce",
        "health",
    ],
    later: &[],
};

pub(super) const KUBERNETES_HEALTH: Keys = Keys {
    known: &["interval", "timeout", "rise", "fall", "proxy_port"],
    later: &[],
};

pub(super) const VIP: Keys = Keys {
    known: &[
        "name",
        "address",
        "port",
        "protocol",
        "table",
        "affinity",
        "forward",
        "announce",
        "min_healthy",
        "announce_at_start",
        "health",
        "move_window",
        "flow_idle",
        "drain_timeout",
        "slow_start",
        "allow",
        "allow_file",
        "deny",
        "deny_file",
        "limit",
        "backend",
    ],
    later: &[],
};

pub(super) const ACCESS: Keys = Keys {
    known: &["allow", "allow_file", "deny", "deny_file"],
    later: &[],
};

pub(super) const LIMIT: Keys = Keys {
    known: &[
        "packets",
        "bytes",
        "new_connections",
        "packets_per_source",
        "new_connections_per_source",
        "burst",
        "action",
        "source_prefix_v4",
        "source_prefix_v6",
        "cluster",
    ],
    later: &[],
};

pub(super) const HEALTH: Keys = Keys {
    known: &[
        "type",
        "port",
        "interval",
        "timeout",
        "rise",
        "fall",
        "via",
        "panic_threshold",
        "path",
        "host",
        "expect_status",
        "tls",
        "tls_verify",
        "service",
        "send",
        "expect",
        "query",
    ],
    later: &[],
};

pub(super) const BACKEND: Keys = Keys {
    known: &["address", "weight", "mac", "forward"],
    later: &[],
};

impl Keys {
    /// The known key nearest to what was written, if one is near enough to be meant.
    pub(super) fn nearest(&self, written: &str) -> Option<&'static str> {
        let written = written.to_ascii_lowercase();
        let nearest = self.known.iter().map(|key| (distance(&written, key), *key));
        let (distance, key) = nearest.min()?;
        if distance <= (key.len() / 3).max(1) {
            return Some(key);
        }
        let is_short = |key: &&&str| written.len() >= 3 && key.starts_with(&written);
        self.known.iter().find(is_short).copied()
    }

    /// The known keys as a list for people.
    pub(super) fn list(&self) -> String {
        one_of(self.known.iter().map(|key| format!("`{key}`")))
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} or {last}", items.join(", ")),
    }
}

/// Edit distance (Levenshtein, with swapped neighbours as one edit).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let at = |rows: &[Vec<usize>], i: usize, j: usize| {
        rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0)
    };
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let left = row.last().copied().unwrap_or(0);
            let changed = at(&rows, i, j) + usize::from(from != to);
            let mut best = changed.min(left + 1).min(at(&rows, i, j + 1) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&rows, i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    at(&rows, a.len(), b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_key_that_was_meant() {
        assert_eq!(NODE.nearest("interface"), Some("interfaces"));
        assert_eq!(NODE.nearest("SEED"), Some("seed"));
        assert_eq!(VIP.nearest("prot"), Some("port"));
        assert_eq!(BACKEND.nearest("wieght"), Some("weight"));
        assert_eq!(VIP.nearest("proto"), Some("protocol"));
        assert_eq!(NODE.nearest("colour"), None);
    }

    #[test]
    fn no_key_is_both_known_and_later() {
        for keys in [
            FILE,
            NODE,
            REDIS,
            FLEET,
            ANNOUNCE,
            KUBERNETES,
            KUBERNETES_HEALTH,
            ACCESS,
            VIP,
            LIMIT,
            HEALTH,
            BACKEND,
        ] {
            assert!(keys.known.iter().all(|key| !keys.later.contains(key)));
        }
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(
            FILE.list(),
            "`node`, `redis`, `fleet`, `kubernetes`, `announce`, `access` or `vip`"
        );
        assert_eq!(BACKEND.list(), "`address`, `weight`, `mac` or `forward`");
    }
}
