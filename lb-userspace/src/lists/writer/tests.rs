use std::sync::{Mutex, PoisonError};

use lb_common::{
    access::{NODE, PrefixKey, lists, verdict},
    vip::VipKey,
};

use super::*;
use crate::{
    config::Prefix,
    dataplane::{DataPlane as _, memory::Memory},
    model::listed::ListedVip,
};

/// Maps in memory that keep a record of what was written, and may fail.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    writes: Vec<String>,
    failures: usize,
}

struct Plane {
    plane: Box<dyn ListPlane>,
    record: Recorded,
}

impl Recorded {
    fn note(&self, write: String) -> anyhow::Result<()> {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if record.failures > 0 {
            record.failures -= 1;
            anyhow::bail!("no memory");
        }
        record.writes.push(write);
        Ok(())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }
}

impl ListPlane for Plane {
    fn set_prefix(&mut self, key: &PrefixKey, verdict: u32) -> anyhow::Result<()> {
        let prefix = Prefix::of_key(key);
        self.record
            .note(format!("{} {prefix} {verdict}", key.owner()))?;
        self.plane.set_prefix(key, verdict)
    }

    fn clear_prefix(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.record
            .note(format!("{} {} gone", key.owner(), Prefix::of_key(key)))?;
        self.plane.clear_prefix(key)
    }

    fn set_list_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        self.record.note(format!("scopes {vip} {scopes}"))?;
        self.plane.set_list_scopes(vip, scopes)
    }

    fn prefixes(&self) -> anyhow::Result<Vec<(PrefixKey, u32)>> {
        self.plane.prefixes()
    }

    fn list_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        self.plane.list_scopes()
    }
}

fn denied(prefixes: &[&str]) -> Arc<[Entry]> {
    let entry = |text: &&str| Entry {
        prefix: text.parse().unwrap(),
        is_denied: true,
    };
    prefixes.iter().map(entry).collect()
}

fn of_vip(id: u32, port: u16, prefixes: &[&str]) -> Listed {
    let key = VipKey::new(
        crate::model::map_address([203, 0, 113, 10].into()),
        port.to_be_bytes(),
        6,
    );
    let vip = ListedVip {
        key: Some(key),
        scopes: lists::OF_VIP,
    };
    Listed {
        scopes: [(id, denied(prefixes))].into(),
        vips: [(id, vip)].into(),
    }
}

#[tokio::test]
async fn only_differences_are_written_and_what_an_earlier_daemon_left_counts() {
    let (memory, record) = (Memory::default(), Recorded::default());
    let plane = || {
        Box::new(Plane {
            plane: memory.list_plane().unwrap(),
            record: record.clone(),
        })
    };
    let mut writer = Writer::start(plane()).unwrap();
    writer.want(of_vip(3, 80, &["10.0.0.0/8", "11.0.0.0/8"]));
    writer.in_force().await.unwrap();
    let denied = verdict::DENIED;
    let first = [
        format!("3 10.0.0.0/8 {denied}"),
        format!("3 11.0.0.0/8 {denied}"),
        "scopes 3 1".to_owned(),
    ];
    assert_eq!(record.take(), first);

    drop(writer);
    let mut writer = Writer::start(plane()).unwrap();
    writer.want(of_vip(3, 80, &["10.0.0.0/8", "12.0.0.0/8"]));
    writer.in_force().await.unwrap();
    let second = [
        format!("3 12.0.0.0/8 {denied}"),
        "scopes 3 1".to_owned(),
        "3 11.0.0.0/8 gone".to_owned(),
    ];
    assert_eq!(record.take(), second);
    assert_eq!(writer.progress().prefixes, 2);
}

#[tokio::test]
async fn whoever_gets_the_number_of_a_vip_is_not_judged_by_its_lists() {
    let (memory, record) = (Memory::default(), Recorded::default());
    let plane = Box::new(Plane {
        plane: memory.list_plane().unwrap(),
        record: record.clone(),
    });
    let mut writer = Writer::start(plane).unwrap();
    writer.want(of_vip(3, 80, &["10.0.0.0/8"]));
    writer.in_force().await.unwrap();
    record.take();
    writer.want(of_vip(3, 443, &["10.0.0.0/8"]));
    writer.in_force().await.unwrap();
    assert_eq!(record.take(), ["scopes 3 0", "scopes 3 1"]);
    writer.want(Listed::default());
    writer.in_force().await.unwrap();
    assert_eq!(record.take(), ["scopes 3 0", "3 10.0.0.0/8 gone"]);
}

#[tokio::test]
async fn after_a_failure_it_goes_on_from_what_is_there() {
    let (memory, record) = (Memory::default(), Recorded::default());
    let plane = Box::new(Plane {
        plane: memory.list_plane().unwrap(),
        record: record.clone(),
    });
    record.0.lock().unwrap().failures = 1;
    let mut writer = Writer::start(plane).unwrap();
    let wanted = Listed {
        scopes: [(NODE, denied(&["10.0.0.0/8"]))].into(),
        vips: [].into(),
    };
    writer.want(wanted);
    let said = writer.in_force().await.unwrap_err().to_string();
    assert!(said.starts_with("no memory"), "{said}");
    let mut progress = writer.progress.clone();
    let done = progress.wait_for(|progress| progress.done == 1);
    tokio::time::timeout(Duration::from_secs(20), done)
        .await
        .unwrap()
        .unwrap();
    assert!(writer.is_in_force() && writer.progress().problem.is_none());
    assert_eq!(record.take().len(), 1);
}
