//! The API's Unix socket: made with its final mode, never over a living daemon's, removed at the end.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net as std_net,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::Access;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// A listening socket whose file goes away with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    access: Access,
    file: SocketFile,
}

impl Socket {
    /// Listens at `path`, mode 0660, for the group that may read, or the one that may change if there is no
    /// other; makes its directory if need be. A socket that nobody listens on is
    /// replaced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Somebody listens there already (`AddrInUse`), something other than a socket is there, or the kernel
    /// refuses.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        refuse_living(path)?;
        // Under another name until its mode is right: nobody can connect in between, and the rename replaces
        // a dead daemon's socket in one step.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        remove_if_there(&new)?;
        let listener = std_net::UnixListener::bind(&new)?;
        let renamed = chown(&new, None, access.readers.or(access.admins))
            .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(MODE)))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::rename(&new, path));
        if let Err(error) = renamed {
            remove_if_there(&new)?;
            return Err(error);
        }
        let metadata = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            access,
            file,
        })
    }

    /// The listener, whom it lets in, and what removes its file when dropped.
    pub(super) fn into_parts(self) -> (UnixListener, Access, SocketFile) {
        let Self {
            listener,
            access,
            file,
        } = self;
        (listener, access, file)
    }
}

/// Removes a socket's file when dropped, unless another daemon has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let metadata = fs::symlink_metadata(&self.path);
        if metadata.is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "the API socket stays behind");
        }
    }
}

fn refuse_living(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let text = format!("{} is there and is not a socket", path.display());
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match std_net::UnixStream::connect(path) {
        Ok(_) => {
            let text = format!("another daemon listens on {}", path.display());
            Err(io::Error::new(ErrorKind::AddrInUse, text))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
