//! How long one core takes to make a table of 65,536 slots: `cargo bench -p weir-benches --bench tables`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use lb_userspace::model::table::RING_NODES;
use weir_benches::sets::{Algorithm, BACKENDS, equal};

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let algorithms = [
        ("maglev", Algorithm::Maglev),
        ("ring", Algorithm::Ring(RING_NODES)),
    ];
    for (name, algorithm) in algorithms {
        let mut group = criterion.benchmark_group(name);
        for count in BACKENDS {
            let members = equal(count);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| algorithm.table(1, black_box(&members)));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
