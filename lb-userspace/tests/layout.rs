//! What is pinned, under another layout's name: taken over under traffic, or refused while the old program forwards on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod netns;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use lb_common::{backend::Backend, reason::Reason};
use lb_userspace::{
    config::{Config, XdpMode},
    dataplane::{
        DataPlane, Sizes,
        apply::apply,
        bpf::{self, BpfDataPlane, Left, ProgramLog, layout::Layout},
    },
    model::{
        attached::{AttachMode, Xdp},
        ids::Ids,
        next_hop::Port,
        plan::Held,
        seed::Keys,
        slots::Slots,
        wanted::{Inputs, Standing, Wanted},
    },
};
use netns::{Namespace, join};

const CONFIG: &str = "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\n\
    [[vip]]\nname = \"echo\"\naddress = \"203.0.113.10\"\nport = 9000\nprotocol = \"udp\"\n\
    [[vip.backend]]\naddress = \"10.0.0.2\"\nmac = \"02:00:00:00:00:02\"\n";

/// A client and a load balancer on one cable, and where the latter pins.
struct World {
    client: Namespace,
    lb: Namespace,
    // Removed after what is pinned there.
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (client, lb) = (Namespace::new("client"), Namespace::new("lb"));
        join(
            (&client, "eth0", "10.0.0.2/24"),
            (&lb, "eth0", "10.0.0.1/24"),
        );
        // Nothing else than the client's datagrams is to be answered for.
        lb.sysctl("ipv6/conf/all/disable_ipv6", "1");
        client.ip("route add 203.0.113.10 via 10.0.0.1 dev eth0");
        Self {
            client,
            lb,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn pin_path(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    fn map(&self, layout: &str, name: &str) -> PathBuf {
        self.pin_path().join(layout).join("maps").join(name)
    }

    /// Puts another map in the place of a pinned one, as an older version may have had it.
    fn replace(&self, name: &str, pin: impl FnOnce(&Path)) {
        let path = self.map("v1", name);
        fs::remove_file(&path).unwrap();
        pin(&path);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = bpf::detach(&self.pin_path()) {
            assert!(thread::panicking(), "{error:#}");
        }
    }
}

const SIZES: Sizes = Sizes {
    max_pins: 4096,
    max_sources: 4096,
};

/// Opens the pins as a daemon of this layout would, takes over what is there, and attaches; `there` is the program
/// that the interface carries.
fn start(world: &World, layout: Layout, there: Option<u32>) -> anyhow::Result<BpfDataPlane> {
    let mut plane = BpfDataPlane::open_layout(&world.pin_path(), ProgramLog::Off, SIZES, layout)?;
    let (vips, backends) = (plane.vips()?, plane.backends()?);
    let mut slots = Vec::new();
    for vip in &vips {
        let table = plane.table(vip.id)?.expect("a table for each VIP");
        slots.push((vip.id, Slots::adopt(table, plane.since(vip.id)?, 0)));
    }
    let mut ids = Ids::adopt(&vips, &backends);
    let mut held = Held::adopt(&vips, &backends, slots);
    let config = Config::parse(CONFIG, "weir.toml").unwrap();
    let keys = Keys::derive(config.node.seed.expose());
    let inputs = Inputs {
        config: &config,
        keys: &keys,
        ports: &[Port {
            ifindex: ifindex(),
            mac: [2, 0, 0, 0, 0, 1],
        }],
        next_hops: &BTreeMap::new(),
        locals: &BTreeSet::new(),
        standing: &Standing::default(),
        cpus: 1,
    };
    let wanted = Wanted::new(&inputs, &held, &mut ids)?;
    apply(&mut plane, &mut held, &wanted, &mut ids, "test")?;
    let there = there.map(|program| Xdp {
        program,
        mode: AttachMode::Native,
    });
    plane.attach("eth0", XdpMode::Native, there)?;
    plane.settle(&["eth0".to_owned()])?;
    Ok(plane)
}

/// The number of `eth0` in the namespace of this thread.
fn ifindex() -> u32 {
    let sockets = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    rustix::net::netdevice::name_to_index(sockets.unwrap(), "eth0").unwrap()
}

/// Datagrams for the VIP until `stop`; returns how many.
fn send(stop: &AtomicBool) -> u64 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        // A burst that a veth's queue holds, and a pause to empty it: what it drops no program sees.
        for _ in 0..16 {
            sent += u64::from(socket.send_to(b"x", "203.0.113.10:9000").is_ok());
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

fn forwarded(plane: &BpfDataPlane) -> u64 {
    let counts = plane.reason_counters().unwrap();
    let forwarded = counts.iter().filter(|c| c.reason == Reason::Forwarded);
    forwarded.map(|count| count.packets).sum()
}

/// Waits until the count of forwarded frames is over this.
fn counts_over(plane: &BpfDataPlane, before: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while forwarded(plane) <= before {
        assert!(Instant::now() < deadline, "nothing is forwarded");
        thread::yield_now();
    }
}

#[test]
fn an_older_layout_is_taken_over_under_traffic() {
    let world = World::new();
    let stop = AtomicBool::new(false);
    world.lb.run(async || {
        let old = start(&world, Layout::of(1), None).unwrap();
        let program = old.program_id().unwrap();
        thread::scope(|scope| {
            let (client, stop) = (&world.client, &stop);
            let (sender, sent) = std::sync::mpsc::channel();
            scope.spawn(move || client.run(async move || sender.send(send(stop)).unwrap()));
            counts_over(&old, 100);
            let (vips, backends) = (old.vips().unwrap(), old.backends().unwrap());
            drop(old);
            let new = start(&world, Layout::of(2), Some(program)).unwrap();
            assert_ne!(new.program_id().unwrap(), program);
            counts_over(&new, forwarded(&new) + 100);
            stop.store(true, Ordering::Relaxed);
            let sent = sent.recv().unwrap();
            // Counted at both ends, and by both programs in one map.
            let deadline = Instant::now() + Duration::from_secs(10);
            while forwarded(&new) < sent && Instant::now() < deadline {
                thread::yield_now();
            }
            assert_eq!(forwarded(&new), sent);
            assert_eq!(
                (new.vips().unwrap(), new.backends().unwrap()),
                (vips, backends)
            );
        });
        let pin_path = world.pin_path();
        assert!(!pin_path.join("v1").exists() && pin_path.join("v2/links/eth0").exists());

        // The way back is refused: an older program does not know what a newer one pins.
        let error = start(&world, Layout::of(1), None).err().unwrap();
        let said = format!("{error:#}");
        assert!(said.contains("by a newer weir (layout v2"), "{said}");
        assert!(said.contains("weir run --fresh"), "{said}");
        assert!(!pin_path.join("v1").exists());
    });
}

/// A daemon of the same layout may have had other maps, and leaves some that nobody knows any more.
#[test]
fn maps_that_came_and_went_within_a_layout_stand_in_nobodys_way() {
    let world = World::new();
    world.lb.run(async || {
        let old = start(&world, Layout::CURRENT, None).unwrap();
        let program = old.program_id().unwrap();
        let current = Layout::CURRENT.to_string();
        for name in ["SOURCE_BLOCKS", "OWN_RATES", "VIP_TABLE"] {
            fs::remove_file(world.map(&current, name)).unwrap();
        }
        let former = world.map(&current, "SOURCES");
        let map = Array::<_, u32>::create(1, 0).unwrap();
        map.pin(&former).unwrap();
        drop(old);
        assert_eq!(Left::read(&world.pin_path()).unwrap().vips.len(), 1);
        let _new = start(&world, Layout::CURRENT, Some(program)).unwrap();
        assert!(!former.exists() && world.map(&current, "SOURCE_BLOCKS").exists());
    });
}

#[test]
fn maps_of_another_size_are_copied_as_far_as_both_go() {
    let world = World::new();
    world.lb.run(async || {
        let old = start(&world, Layout::of(1), None).unwrap();
        let (program, backends) = (old.program_id().unwrap(), old.backends().unwrap());
        let cpus = aya::util::nr_cpus().unwrap();
        world.replace("BACKENDS", |path| {
            let mut map = Array::<_, [u8; size_of::<Backend>()]>::create(512, 0).unwrap();
            for (id, backend) in &backends {
                let bytes: [u8; size_of::<Backend>()] =
                    zerocopy::IntoBytes::as_bytes(backend).try_into().unwrap();
                map.set(u32::from(*id), bytes, 0).unwrap();
            }
            map.pin(path).unwrap();
        });
        world.replace("OUTCOME_COUNTERS", |path| {
            let mut map = PerCpuArray::<_, u64>::create(8, 0).unwrap();
            let sevens = PerCpuValues::try_from(vec![7; cpus]).unwrap();
            map.set(Reason::Forwarded as u32, sevens, 0).unwrap();
            map.pin(path).unwrap();
        });
        drop(old);
        let new = start(&world, Layout::of(2), Some(program)).unwrap();
        assert_eq!(new.backends().unwrap(), backends);
        assert_eq!(forwarded(&new), 7 * cpus as u64);
        // As large as this version wants it.
        let map = Map::Array(MapData::from_pin(world.map("v2", "BACKENDS")).unwrap());
        let map: Array<_, [u8; size_of::<Backend>()]> = map.try_into().unwrap();
        assert_eq!(map.len(), 65_536);
    });
}

#[test]
fn what_cannot_be_taken_over_is_refused_and_forwards_on() {
    let world = World::new();
    world.lb.run(async || {
        let old = start(&world, Layout::of(1), None).unwrap();
        world.replace("BACKENDS", |path| {
            let map = Array::<_, [u8; 48]>::create(65_536, 0).unwrap();
            map.pin(path).unwrap();
        });
        drop(old);
        for layout in [1, 2] {
            let error = start(&world, Layout::of(layout), None).err().unwrap();
            let said = format!("{error:#}");
            assert!(
                said.contains("v1/maps/BACKENDS is Array of 4+48 bytes times 65536, and this weir wants Array of 4+64"),
                "{said}"
            );
            assert!(said.contains("forwards on") && said.contains("weir run --fresh"), "{said}");
        }
        // The old program is on the interface, and nothing else is pinned.
        assert!(world.pin_path().join("v1/links/eth0").exists());
        assert!(!world.pin_path().join("v2").exists());
        assert!(world.lb.ip("link show dev eth0").contains("prog/xdp"));

        // A start without what it holds: everything goes, and the new layout is alone.
        bpf::detach(&world.pin_path()).unwrap();
        start(&world, Layout::of(2), None).unwrap();
    });
}
