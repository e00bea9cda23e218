//! Two nodes with the same VIPs on one segment, of which a real keepalived has one announce them: the client finds them there by ARP
//! and neighbour discovery, and is told by gratuitous messages when they move. And one node alone, whose backends fail.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use etherparse::{Icmpv6Type, PacketBuilder};
use rustix::process::Signal;
use xtask::{
    lab::{
        Host, Lab, Nic, Observer, Plan, Process, Recorder, Topology, VIP_V4, VIP_V6, Weir,
        WeirConfig, until,
    },
    traffic::client,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Number of the host that only asks who has the VIPs.
const WATCHER: u8 = 99;
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

type Mac = [u8; 6];

/// A node: weir, and the keepalived beside it.
struct Node {
    keepalived: Option<Process>,
    weir: Weir,
    mac: Mac,
    name: &'static str,
    host: xtask::lab::Namespace,
    priority: u8,
}

impl Node {
    fn start(lab: &Lab, host: &Host, config: &WeirConfig, priority: u8) -> Self {
        let weir =
            Weir::start(lab, &host.namespace, config).unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            keepalived: None,
            weir,
            mac: host.nic.mac_bytes().unwrap(),
            name: if priority > 100 { "lb-1" } else { "lb-2" },
            host: host.namespace.clone(),
            priority,
        }
    }

    /// What the script that keepalived runs finds weir by.
    fn environment(&self, lab: &Lab) -> [(&'static str, PathBuf); 3] {
        [
            ("WEIR", self.weir.binary().to_owned()),
            ("WEIR_SOCKET", self.weir.socket()),
            ("WEIR_ANNOUNCE_FOLDER", lab.folder().join(self.name)),
        ]
    }

    /// Starts keepalived with the example of deploy/, for this node.
    fn start_keepalived(&mut self, lab: &Lab) {
        let text = shipped("keepalived.conf")
            .replace("router_id lb-1", &format!("router_id {}", self.name))
            .replace("priority 150", &format!("priority {}", self.priority))
            .replace(
                "/etc/keepalived/weir-announce",
                &script(lab).display().to_string(),
            )
            .replace("announce web web-v6", "announce web-v4 web-v6");
        let file = lab
            .write(&format!("{}.keepalived", self.name), &text)
            .unwrap();
        let pid = |of: &str| lab.folder().join(format!("{}.{of}.pid", self.name));
        let mut command = self.host.command("keepalived");
        command
            .args([
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--vrrp",
                "-f",
            ])
            .arg(file)
            .arg("-p")
            .arg(pid("keepalived"))
            .arg("-r")
            .arg(pid("vrrp"))
            .envs(self.environment(lab));
        let name = format!("{}-keepalived", self.name);
        self.keepalived = Some(Process::start(&self.host, &name, &mut command).unwrap());
    }

    fn end_keepalived(&mut self, signal: Signal) {
        let mut keepalived = self.keepalived.take().unwrap();
        keepalived.end_by(signal, PATIENCE).unwrap();
    }

    /// What systemd does after the end of keepalived, by the drop-in of deploy/.
    fn stop_post(&self, lab: &Lab) {
        let unit = shipped("keepalived.service.d-weir.conf");
        let line = unit.lines().find_map(|line| {
            let command = line.strip_prefix("ExecStopPost=/bin/sh -c '")?;
            command.strip_suffix('\'')
        });
        let line = line
            .unwrap()
            .replace(
                "/etc/keepalived/weir-announce",
                &script(lab).display().to_string(),
            )
            .replace("announce web web-v6", "announce web-v4 web-v6");
        let mut command = self.host.command("sh");
        command.args(["-c", &line]).envs(self.environment(lab));
        let name = format!("{}-stop-post", self.name);
        let mut process = Process::start(&self.host, &name, &mut command).unwrap();
        until("the script to end", PATIENCE, || {
            Ok(process.ended()?.is_some())
        })
        .unwrap();
    }

    /// Whether weir says that it announces both addresses.
    fn announces(&self) -> bool {
        let text = self.weir.ask(&["announce", "-o", "json"]).unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = all.as_array().unwrap();
        assert_eq!(all.len(), 2, "{text}");
        all.iter().all(|one| one.get("on") == Some(&true.into()))
    }
}

fn shipped(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/keepalived");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// A copy of the script that is root's, as keepalived wants it.
fn script(lab: &Lab) -> PathBuf {
    let path = lab.folder().join("weir-announce");
    if !path.exists() {
        lab.write("weir-announce", &shipped("weir-announce"))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}

/// Asks the segment who has an address, as hosts do.
struct Asker<'a> {
    nic: &'a Nic,
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// Somebody who always answers.
    fence: Ipv4Addr,
    recorder: Recorder,
}

impl<'a> Asker<'a> {
    fn new(host: &'a Host, fence: &Host) -> Self {
        let v4 = |address| match address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => panic!("{address}"),
        };
        let IpAddr::V6(v6) = host.v6 else {
            panic!("{}", host.v6);
        };
        Self {
            nic: &host.nic,
            mac: host.nic.mac_bytes().unwrap(),
            v4: v4(host.v4),
            v6,
            fence: v4(fence.v4),
            recorder: host.nic.record().unwrap(),
        }
    }

    /// The MAC addresses of those who say that they have an address, so far as they were asked.
    fn who_has(&mut self, address: IpAddr) -> BTreeSet<Mac> {
        let question = match address {
            IpAddr::V4(address) => self.request(address),
            IpAddr::V6(address) => self.solicitation(address),
        };
        self.nic.send(&question).unwrap();
        let mut found = BTreeSet::new();
        // An answer that has not come when somebody else was asked three times, and has answered, does not come.
        for _ in 0..3 {
            self.nic.send(&self.request(self.fence)).unwrap();
            let fence = self.fence;
            let mut seen = Vec::new();
            let is_fence = |frame: &[u8]| answer(frame) == Some((fence.into(), true));
            until("the fence to answer", PATIENCE, || {
                seen.extend(self.recorder.take());
                Ok(seen.iter().any(|frame| is_fence(frame)))
            })
            .unwrap();
            let answers = seen
                .iter()
                .filter(|frame| answer(frame) == Some((address, true)));
            found.extend(answers.filter_map(|frame| frame.get(6..12)?.first_chunk::<6>()));
        }
        found
    }

    fn request(&self, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = [[0xff; 6], self.mac].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.mac);
        frame.extend(self.v4.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }

    fn solicitation(&self, target: Ipv6Addr) -> Vec<u8> {
        let [.., a, b, c] = target.octets();
        let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
        let kind = Icmpv6Type::Unknown {
            type_u8: 135,
            code_u8: 0,
            bytes5to8: [0; 4],
        };
        let builder = PacketBuilder::ethernet2(self.mac, [0x33, 0x33, 0xff, a, b, c])
            .ipv6(self.v6.octets(), group, 255)
            .icmpv6(kind);
        let mut payload = target.octets().to_vec();
        payload.extend([1, 1]);
        payload.extend(self.mac);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).unwrap();
        frame
    }
}

/// Whose address a frame tells of, and whether it answers a question.
fn answer(frame: &[u8]) -> Option<(IpAddr, bool)> {
    match frame.get(12..14)? {
        [8, 6] => {
            let sender: [u8; 4] = *frame.get(28..32)?.first_chunk()?;
            let target: [u8; 4] = *frame.get(38..42)?.first_chunk()?;
            let is_reply = frame.get(21) == Some(&2);
            Some((IpAddr::from(sender), is_reply && sender != target))
        }
        [0x86, 0xdd] if frame.get(20) == Some(&58) && frame.get(54) == Some(&136) => {
            let target: [u8; 16] = *frame.get(62..78)?.first_chunk()?;
            let is_solicited = frame.get(58)? & 0x40 != 0;
            Some((IpAddr::from(target), is_solicited))
        }
        _ => None,
    }
}

/// Whether both VIPs are served to the client.
fn serves(topology: &Topology) -> bool {
    VIPS.iter().all(|vip| {
        let ask = || client::ask(Topology::http(*vip));
        topology.client.namespace.inside(ask).is_ok()
    })
}

/// What the one who asks without end has seen.
#[derive(Default)]
struct Seen {
    rounds: usize,
    now: Vec<BTreeSet<Mac>>,
    both: Vec<String>,
}

struct Story<'a> {
    lab: &'a Lab,
    topology: &'a Topology,
    seen: &'a Mutex<Seen>,
}

impl Story<'_> {
    /// Waits until the segment finds the VIPs at these and nowhere else.
    fn are_at(&self, what: &str, nodes: &[&Node]) {
        let wanted: BTreeSet<_> = nodes.iter().map(|node| node.mac).collect();
        // A round that began before the last change tells nothing of it.
        let begun = self.seen.lock().unwrap().rounds;
        let came = until(what, PATIENCE, || {
            let seen = self.seen.lock().unwrap();
            Ok(seen.rounds > begun + 1 && seen.now.iter().all(|found| *found == wanted))
        });
        let now = &self.seen.lock().unwrap().now;
        came.unwrap_or_else(|error| panic!("{error:#}: {now:02x?} instead of {wanted:02x?}"));
    }

    /// Waits until the client, who asks nobody, has heard that the VIPs have moved.
    fn client_learns(&self, node: &Node) {
        let client = &self.topology.client;
        let begun = Instant::now();
        until("the client to hear of it", PATIENCE, || {
            Ok(VIPS
                .iter()
                .all(|vip| client.knows(*vip).unwrap() == Some(node.mac)))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", self.neighbours()));
        eprintln!(
            "the client heard of {} after {:?}",
            node.name,
            begun.elapsed()
        );
        assert!(serves(self.topology), "HTTP through {}", node.name);
    }

    fn neighbours(&self) -> String {
        self.topology.client.namespace.ip("neigh").unwrap()
    }

    fn tell(&self, first: &mut Node, second: &mut Node) {
        // Before keepalived has spoken nobody has the VIPs.
        self.are_at("silence before keepalived", &[]);
        assert!(!first.announces() && !second.announces());
        first.start_keepalived(self.lab);
        second.start_keepalived(self.lab);
        self.are_at("the VIPs at the master", &[first]);
        assert!(first.announces() && !second.announces());
        assert!(serves(self.topology));
        for vip in VIPS {
            assert_eq!(self.topology.client.knows(vip).unwrap(), Some(first.mac));
        }

        // Stopped as by systemctl.
        first.end_keepalived(Signal::TERM);
        self.client_learns(second);
        self.are_at("the VIPs at the other node", &[second]);

        // Who comes back is no master.
        first.start_keepalived(self.lab);
        until("keepalived to be there", PATIENCE, || {
            let log = fs::read_to_string(first.keepalived.as_ref().unwrap().log())?;
            Ok(log.matches("Entering BACKUP STATE").count() >= 2)
        })
        .unwrap();
        self.are_at("the VIPs where they were", &[second]);

        // A daemon that is killed changes nothing, and comes back with what it was told.
        second.weir.end_by(Signal::KILL).unwrap();
        self.are_at("the VIPs without a daemon", &[second]);
        assert!(serves(self.topology));
        second
            .weir
            .restart()
            .unwrap_or_else(|error| panic!("{error:#}"));
        assert!(second.announces());
        self.are_at("the VIPs with a new daemon", &[second]);

        // Killed, so that it says nothing to anybody; systemd runs what follows.
        let parent = second.keepalived.as_ref().unwrap().id().to_string();
        let child = fs::read_to_string(self.lab.folder().join("lb-2.vrrp.pid")).unwrap();
        second
            .host
            .run("kill", ["-KILL", &parent, child.trim()])
            .unwrap();
        second.end_keepalived(Signal::KILL);
        second.stop_post(self.lab);
        self.are_at("nobody, for a moment", &[]);
        self.client_learns(first);
        self.are_at("the VIPs at the first again", &[first]);

        // By hand.
        let said = first.weir.output(&[
            "announce",
            "off",
            "echo-v4",
            "--socket",
            &first.weir.socket().to_string_lossy(),
        ]);
        let said = String::from_utf8(said.unwrap().stderr).unwrap();
        assert!(
            said.contains(
                "203.0.113.10 is silent, and with it every VIP of this address: web-v4, echo-v4"
            ),
            "{said}"
        );
        until("the one address to be silent", PATIENCE, || {
            let counts: Vec<_> = self
                .seen
                .lock()
                .unwrap()
                .now
                .iter()
                .map(BTreeSet::len)
                .collect();
            Ok(counts == [0, 1])
        })
        .unwrap();
        // The client knows where it was: what comes is served.
        assert!(serves(self.topology));
        let metrics = first.weir.metrics().unwrap();
        for (vip, wanted) in [("web-v4", 0.0), ("echo-v4", 0.0), ("web-v6", 1.0)] {
            let value = metrics.sum("weir_vip_announced", &[("vip", vip)]);
            assert!((value.unwrap() - wanted).abs() < f64::EPSILON, "{vip}");
        }
    }
}

#[test]
fn keepalived_decides_which_node_announces_and_both_never_do() {
    let lab = Lab::new().unwrap();
    let plan = Plan {
        near: 2,
        far: 0,
        routed: 0,
    };
    let topology = Topology::build(&lab, &plan).unwrap();
    let (second_host, _observer): (Host, Observer) = topology.second_lb(&lab).unwrap();
    let watcher = topology.another_host(&lab, "watcher", WATCHER).unwrap();
    // The VIPs are on the segment; what the client knows of them stays until it is told otherwise.
    for vip in VIPS {
        topology.client.reach_on_segment(vip).unwrap();
    }
    let config = WeirConfig {
        announce: "announce = \"l2\"\nannounce_at_start = false\n",
        ..WeirConfig::for_topology(&topology, &[])
    };
    let other = WeirConfig {
        node: "lb-2".to_owned(),
        encap_source: vec![second_host.v4, second_host.v6],
        ..config.clone()
    };
    let mut first = Node::start(&lab, &topology.lb, &config, 150);
    let mut second = Node::start(&lab, &second_host, &other, 50);

    let (seen, is_over) = (Mutex::new(Seen::default()), AtomicBool::new(false));
    let backend = topology.backends.first().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut asker = Asker::new(&watcher, backend);
            while !is_over.load(Ordering::Relaxed) {
                let now: Vec<_> = VIPS.iter().map(|vip| asker.who_has(*vip)).collect();
                let mut seen = seen.lock().unwrap();
                let both = now.iter().any(|found| found.len() > 1);
                if both {
                    let round = seen.rounds;
                    seen.both.push(format!("round {round}: {now:02x?}"));
                }
                seen.rounds += 1;
                seen.now = now;
            }
        });
        let story = Story {
            lab: &lab,
            topology: &topology,
            seen: &seen,
        };
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            story.tell(&mut first, &mut second);
        }));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
    });
    let seen = seen.into_inner().unwrap();
    eprintln!("asked {} times", seen.rounds);
    assert!(seen.both.is_empty(), "both answered: {:?}", seen.both);
    assert!(seen.rounds > 20);
}

/// Which of the VIPs are found on the segment, and where.
fn found(asker: &mut Asker<'_>) -> Vec<BTreeSet<Mac>> {
    VIPS.iter().map(|vip| asker.who_has(*vip)).collect()
}

#[test]
fn a_vip_is_found_on_the_segment_while_enough_backends_pass() {
    let lab = Lab::new().unwrap();
    let plan = Plan {
        near: 2,
        far: 0,
        routed: 0,
    };
    let topology = Topology::build(&lab, &plan).unwrap();
    let watcher = topology.another_host(&lab, "watcher", WATCHER).unwrap();
    let client = &topology.client;
    for vip in VIPS {
        client.reach_on_segment(vip).unwrap();
    }
    let mut config = WeirConfig {
        announce: "announce = \"l2\"\nmin_healthy = 2\n",
        more: "[announce]\nhold_down = \"1s\"\n".to_owned(),
        ..WeirConfig::for_topology(&topology, &[])
    };
    for vip in &mut config.vips {
        vip.checked = Some(Topology::checked());
    }
    let backends = topology.backends.iter();
    let mut checked: Vec<_> = backends
        .map(|backend| Topology::answer_checks(backend).unwrap())
        .collect();
    let weir = Weir::start(&lab, &topology.lb.namespace, &config)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let here = BTreeSet::from([topology.lb.nic.mac_bytes().unwrap()]);
    let mut asker = Asker::new(&watcher, topology.backends.first().unwrap());
    let comes_to = |asker: &mut Asker<'_>, what: &str, wanted: &BTreeSet<Mac>| {
        until(what, PATIENCE, || {
            Ok(found(asker).iter().all(|found| found == wanted))
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    };
    let told = || {
        let status = weir.status().unwrap();
        let announce = status.vip("web-v4").unwrap().announce.clone().unwrap();
        (announce.announced, announce.reason)
    };
    // Before the first checks nothing is known, and nothing is withheld.
    until("the backends to pass", PATIENCE, || {
        Ok(told() == (true, "healthy".to_owned()))
    })
    .unwrap();
    comes_to(&mut asker, "both VIPs to be found", &here);
    assert!(serves(&topology));

    // One of two backends fails its checks, and goes on serving.
    let mut failing = checked.pop().unwrap();
    failing.end_by(Signal::KILL, PATIENCE).unwrap();
    comes_to(&mut asker, "nobody to answer for them", &BTreeSet::new());
    assert_eq!(told(), (false, "too_few_healthy".to_owned()));
    let text = weir.ask(&["announce", "-o", "json"]).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    for one in all.as_array().unwrap() {
        assert_eq!(one.get("on"), Some(&false.into()), "{text}");
        assert_eq!(one.get("because"), Some(&"withheld".into()), "{text}");
    }
    let metrics = weir.metrics().unwrap();
    let announced = metrics.sum("weir_vip_announced", &[]);
    assert!(announced.unwrap().abs() < f64::EPSILON);
    // Who knows the way is served: withheld is not refused.
    assert!(serves(&topology));

    // It passes again: the client, who believes the VIPs to be elsewhere by now and asks nobody, is told.
    let elsewhere = watcher.namespace.ip("-br link show dev eth0").unwrap();
    let elsewhere = elsewhere.split_whitespace().nth(2).unwrap();
    for vip in VIPS {
        let entry = format!("neigh replace {vip} lladdr {elsewhere} dev eth0 nud reachable");
        client.namespace.ip(&entry).unwrap();
    }
    let backend = topology.backends.last().unwrap();
    checked.push(Topology::answer_checks(backend).unwrap());
    let learnt = until("the client to hear of it", PATIENCE, || {
        let mut known = VIPS.iter().map(|vip| client.knows(*vip).unwrap());
        Ok(known.all(|mac| mac.is_some_and(|mac| here.contains(&mac))))
    });
    learnt.unwrap_or_else(|error| panic!("{error:#}: {}", client.namespace.ip("neigh").unwrap()));
    comes_to(&mut asker, "both VIPs to be found again", &here);
    assert_eq!(told(), (true, "healthy".to_owned()));
    assert!(serves(&topology));
}
