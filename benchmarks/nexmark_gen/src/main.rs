//! Deterministic front end of the public generator crate `nexmark` 0.2.0 (risingwavelabs/nexmark-rs, Apache-2.0).
//! The crate's own CLI takes base_time from the wall clock, so two runs differ; here everything that matters is an argument.
use nexmark::{config::NexmarkConfig, event::Event, EventGenerator};
use std::io::{BufWriter, Write};

fn arg(name: &str, default: u64) -> u64 {
    let mut it = std::env::args();
    while let Some(a) = it.next() {
        if a == name {
            return it.next().and_then(|v| v.parse().ok()).unwrap_or_else(|| {
                eprintln!("bad value for {name}");
                std::process::exit(2)
            });
        }
    }
    default
}

fn main() {
    if std::env::args().any(|a| a == "--help" || a == "-h") {
        println!("nexmark-gen [--n 1000000] [--seed 0] [--rate 1000 events/s] [--base-ms 1436918400000] [--ooo 1 (group size; 1000 = 1000 events shuffled)] > events.jsonl");
        return;
    }
    let n = arg("--n", 1_000_000);
    let seed = arg("--seed", 0);
    let rate = arg("--rate", 1_000) as usize;
    let base = arg("--base-ms", 1_436_918_400_000);
    let ooo = arg("--ooo", 1) as usize;
    let cfg = NexmarkConfig {
        base_time: base,
        // each event is drawn from SmallRng(seed = event id): shifting the ids is the seed.
        // It must be a multiple of 50 (person+auction+bid proportions).
        first_event_id: (seed * 50_000_000) as usize,
        first_rate: rate,
        next_rate: rate,
        out_of_order_group_size: ooo,
        ..Default::default()
    };
    let out = std::io::stdout();
    let mut w = BufWriter::with_capacity(1 << 20, out.lock());
    for (i, e) in EventGenerator::new(cfg).take(n as usize).enumerate() {
        let (kind, key) = match &e {
            Event::Person(p) => ("person", p.id),
            Event::Auction(a) => ("auction", a.id),
            Event::Bid(b) => ("bid", b.auction),
        };
        let ts = e.timestamp();
        // event number: the tie-break, the same in every arrival order
        let eid = (i / ooo) * ooo + (i * 953) % ooo;
        let body = match &e {
            Event::Person(p) => serde_json::to_string(p),
            Event::Auction(a) => serde_json::to_string(a),
            Event::Bid(b) => serde_json::to_string(b),
        }
        .unwrap();
        // one envelope per line: seq = arrival order, ts = event time (ms)
        if writeln!(w, "{{\"seq\":{i},\"eid\":{eid},\"kind\":\"{kind}\",\"key\":\"{key}\",\"ts\":{ts},\"value\":{body}}}").is_err() {
            return;
        }
    }
}
