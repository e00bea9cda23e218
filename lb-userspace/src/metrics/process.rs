//! What the daemon itself uses, under the names that Prometheus' own libraries give it.

use std::sync::OnceLock;

use procfs::{
    ProcError,
    process::{LimitValue, Process, Stat},
};

use super::{
    samples::whole,
    table::{Kind, Metric, Sample},
};

/// What the kernel tells of this process.
pub struct Usage {
    stat: Stat,
    open_files: Option<u64>,
    most_files: Option<u64>,
    started: Option<f64>,
}

impl Usage {
    /// Asks the kernel.
    ///
    /// # Errors
    /// There is no /proc, or it hides this process.
    pub fn read() -> Result<Self, ProcError> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let most_files = process.limits().ok().map(|limits| limits.max_open_files);
        Ok(Self {
            started: started(&stat),
            open_files: process.fd_count().ok().map(|count| count as u64),
            most_files: most_files.and_then(|limit| match limit.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            }),
            stat,
        })
    }
}

/// When the process was started, in seconds since 1970.
fn started(stat: &Stat) -> Option<f64> {
    // The kernel writes a line for every interrupt to tell when it was started itself.
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    let boot = (*BOOT.get_or_init(|| procfs::boot_time_secs().ok()))?;
    Some(whole(boot) + seconds(stat.starttime))
}

fn seconds(ticks: u64) -> f64 {
    whole(ticks) / whole(procfs::ticks_per_second())
}

/// All of them, in the order of the page that lists them.
pub const PROCESS: &[Metric<Usage>] = &[
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Time that the daemon spent on CPUs. What packets take is not in it. Starts at 0 with the daemon.",
        samples: |usage| one(seconds(usage.stat.utime + usage.stat.stime)),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory of the daemon that is in RAM. The maps are the kernel's and are not in it.",
        samples: |usage| one(whole(usage.stat.rss * procfs::page_size())),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Address space of the daemon.",
        samples: |usage| one(whole(usage.stat.vsize)),
    },
    Metric {
        name: "process_threads",
        kind: Kind::Gauge,
        labels: &[],
        help: "Threads of the daemon.",
        samples: |usage| one(whole(usage.stat.num_threads.unsigned_abs())),
    },
    Metric {
        name: "process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Files, sockets and maps that the daemon has open.",
        samples: |usage| {
            usage
                .open_files
                .into_iter()
                .flat_map(|n| one(whole(n)))
                .collect()
        },
    },
    Metric {
        name: "process_max_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "How many it may have open.",
        samples: |usage| {
            usage
                .most_files
                .into_iter()
                .flat_map(|n| one(whole(n)))
                .collect()
        },
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the daemon was started, in seconds since 1970.",
        samples: |usage| usage.started.into_iter().flat_map(one).collect(),
    },
];

fn one(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}
