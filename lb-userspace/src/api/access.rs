//! Who may do what: the process at the other end of the socket, as the kernel names it.
//!
//! The kernel tells user, main group and process of a peer (`SO_PEERCRED`), as they were when it connected. Further
//! groups are read from `/proc/PID/status`, at once. Between the two the process may have ended and its number may
//! have been given to another, or it may have started a program with other rights. So the file counts only if every
//! user id in it is the peer's, and then only the real group and the supplementary ones, which a set-group-id program
//! does not change: at worst weir reads the groups of another process of that same user. Where the file cannot be
//! read (another PID namespace, a process that has ended) the main group alone counts.

use std::{fs, io};

use axum::http::Method;
use tokio::net::UnixStream;

use super::{Actor, observe::CAPTURE, profile::PROFILE};

/// Which groups are let in, besides root and the daemon's own user.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// May read.
    pub readers: Option<u32>,
    /// May read and change.
    pub admins: Option<u32>,
}

/// The process at the other end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Peer {
    uid: u32,
    pid: Option<i32>,
    groups: Vec<u32>,
}

/// What a request does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Right {
    /// It looks.
    Read,
    /// It changes something.
    Write,
    /// It looks into the daemon itself.
    Profile,
}

impl Right {
    /// What it takes to send a request.
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match path {
            PROFILE => Self::Profile,
            // What clients send is for those alone who could redirect it anyway.
            CAPTURE => Self::Write,
            // A plan is sent by POST and changes nothing.
            "/v1/plan" => Self::Read,
            _ if matches!(*method, Method::GET | Method::HEAD) => Self::Read,
            _ => Self::Write,
        }
    }
}

impl Peer {
    /// The peer of a connection, as of now.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, pid) = (credentials.uid(), credentials.pid());
        let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let mut groups = vec![credentials.gid()];
        groups.extend(
            status
                .and_then(|status| groups_of(&status, uid))
                .unwrap_or_default(),
        );
        Ok(Self { uid, pid, groups })
    }

    /// For logs and events.
    pub(super) const fn actor(&self) -> Actor {
        Actor::User {
            uid: self.uid,
            pid: self.pid,
        }
    }
}

impl Access {
    /// Lets a peer in.
    ///
    /// # Errors
    /// Why not, and what would.
    pub(super) fn allow(&self, peer: &Peer, right: Right) -> Result<(), String> {
        let own = rustix::process::geteuid().as_raw();
        if peer.uid == 0 || peer.uid == own {
            return Ok(());
        }
        let is_in = |group: Option<u32>| group.is_some_and(|group| peer.groups.contains(&group));
        let uid = peer.uid;
        match right {
            _ if is_in(self.admins) => Ok(()),
            Right::Read if is_in(self.readers) => Ok(()),
            Right::Read => Err(format!(
                "user {uid} may not read: that takes root, or a member of `api_group` or `api_admin_group`"
            )),
            Right::Write => Err(format!(
                "user {uid} may not change anything: that takes root, or a member of `api_admin_group`"
            )),
            Right::Profile => Err(format!(
                "user {uid} may not profile the daemon: that takes root, or a member of `api_admin_group`"
            )),
        }
    }
}

/// The real and the supplementary groups in a process's status, if it is wholly that user's.
fn groups_of(status: &str, uid: u32) -> Option<Vec<u32>> {
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().map(|n| n.parse().ok()).collect()
    };
    if numbers("Uid:")?.iter().any(|found| *found != uid) {
        return None;
    }
    let mut groups = numbers("Groups:")?;
    groups.extend(numbers("Gid:")?.first());
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access {
        readers: Some(100),
        admins: Some(200),
    };

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer {
            uid,
            pid: None,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn readers_read_and_admins_change() {
        let may = |access: Access, peer: &Peer| {
            let profile = access.allow(peer, Right::Profile).is_ok();
            assert_eq!(profile, access.allow(peer, Right::Write).is_ok());
            [Right::Read, Right::Write].map(|right| access.allow(peer, right).is_ok())
        };
        assert_eq!(may(ACCESS, &peer(0, &[0])), [true, true]);
        assert_eq!(may(ACCESS, &peer(1000, &[1000])), [false, false]);
        assert_eq!(may(ACCESS, &peer(1000, &[1000, 100])), [true, false]);
        assert_eq!(may(ACCESS, &peer(1000, &[200])), [true, true]);
        // Nobody but root where no group is named.
        let nobody = Access::default();
        assert_eq!(may(nobody, &peer(1000, &[100, 200])), [false, false]);
        assert_eq!(may(nobody, &peer(0, &[])), [true, true]);
    }

    #[test]
    fn questions_are_read_but_for_those_that_look_into_the_daemon() {
        assert_eq!(Right::of(&Method::GET, "/v1/status"), Right::Read);
        assert_eq!(Right::of(&Method::HEAD, "/v1/flows"), Right::Read);
        assert_eq!(Right::of(&Method::POST, "/v1/plan"), Right::Read);
        assert_eq!(Right::of(&Method::POST, "/v1/detach"), Right::Write);
        assert_eq!(Right::of(&Method::DELETE, "/v1/blocks"), Right::Write);
        assert_eq!(Right::of(&Method::PUT, "/v1/node/drain"), Right::Write);
        assert_eq!(Right::of(&Method::GET, PROFILE), Right::Profile);
        assert_eq!(Right::of(&Method::HEAD, PROFILE), Right::Profile);
    }

    #[test]
    fn groups_count_only_of_a_process_that_is_wholly_the_peers() {
        let status = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t9\t9\t9\nGroups:\t10 11 \n";
        assert_eq!(groups_of(status, 7), Some(vec![10, 11, 8]));
        assert_eq!(groups_of(status, 6), None);
        // A set-user-id program that the peer has started.
        let status = "Uid:\t7\t0\t0\t0\nGid:\t8\t8\t8\t8\nGroups:\t10\n";
        assert_eq!(groups_of(status, 7), None);
        assert_eq!(groups_of("", 7), None);
        let status = "Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \n";
        assert_eq!(groups_of(status, 7), Some(vec![8]));
    }

    #[tokio::test]
    async fn the_kernel_tells_who_a_peer_is() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(peer.pid, Some(pid));
        assert!(peer.groups.len() >= 2, "{peer:?}");
    }
}
