//! Listening sockets: made without a moment of wrong permissions, and removed at the end.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::string::String;

use mio::net::{UnixListener, UnixStream};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use policy::Peer;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, socket_with,
};

use super::failure::Failure;
use super::options::Socket;

/// A socket that clients connect to. Dropping it removes its file, if it is still its own.
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    channel: String,
    path: PathBuf,
    /// Device and number of the socket's file.
    inode: Option<(u64, u64)>,
    /// The uid that stands for every user without one here, where there are such users.
    nobody: Option<u32>,
    /// There may be somebody to accept.
    pub(crate) ready: bool,
}

impl Listener {
    /// Listens; `nobody` is what [`nobody`] told. A file that a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// Somebody listens there, something else is there, or the system refuses.
    pub(crate) fn bind(socket: Socket, mode: u32, nobody: Option<u32>) -> Result<Self, Failure> {
        let Socket { channel, path } = socket;
        make_way(&path)?;
        let socket = match listen(&path, mode) {
            Ok(socket) => UnixListener::from_std(socket.into()),
            Err(error) => return Err(Failure::Socket { path, error }),
        };
        let inode = fs::symlink_metadata(&path).ok().map(|file| (file.dev(), file.ino()));
        Ok(Self { socket, channel, path, inode, nobody, ready: true })
    }

    /// Listens on a socket that somebody else made, whose file is somebody else's too.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn passed(socket: StdListener, channel: String) -> io::Result<Self> {
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            let what = "it is a connection, not a socket that listens: Accept=no is needed";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let path = address.as_pathname().unwrap_or(Path::new("")).into();
        let socket = UnixListener::from_std(socket);
        Ok(Self { socket, channel, path, inode: None, nobody: nobody(), ready: true })
    }

    /// Takes the next connection, with what the kernel vouches for.
    ///
    /// # Errors
    /// As accept(2), of which `WouldBlock` means that nobody waits.
    pub(crate) fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        // Its address is not asked for: it may be longer than what it is read into, and nobody needs it.
        let stream = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let stream = UnixStream::from_std(stream.into());
        let credentials = getsockopt(&stream, PeerCredentials)?;
        let uid = Some(credentials.uid()).filter(|uid| Some(*uid) != self.nobody);
        Ok((stream, Peer { channel: self.channel.clone(), uid }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        if now.is_some() && now == self.inode {
            // Left behind, it is replaced by the next start.
            let _left = fs::remove_file(&self.path);
        }
    }
}

/// Asks for the uid that the kernel names for every user who has none in this user namespace: many users, so it tells of none.
/// `None` where all have one, as outside of containers. To be called while files can still be opened.
pub(crate) fn nobody() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    nobody_of(&map, &overflow)
}

/// Reads both files; what cannot be read is what the kernel begins with.
fn nobody_of(map: &str, overflow: &str) -> Option<u32> {
    let mut words = map.split_ascii_whitespace();
    let whole = [words.next(), words.next(), words.next()] == ["0", "0", "4294967295"].map(Some);
    (!whole).then(|| overflow.trim().parse().unwrap_or(OVERFLOW_UID))
}

/// The kernel's DEFAULT_OVERFLOWUID.
const OVERFLOW_UID: u32 = 65534;

/// Makes a socket with its file.
///
/// Before it listens nobody can connect, so the mode is in force from the first moment on; to
/// listen first, or to change the process' mask meanwhile, would leave one without.
fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let listens = fs::set_permissions(path, Permissions::from_mode(mode))
        .and_then(|()| Ok(rustix::net::listen(&socket, BACKLOG)?));
    if listens.is_err() {
        // The first failure is the one to tell.
        let _left = fs::remove_file(path);
    }
    listens.map(|()| socket)
}

/// Connections that wait to be accepted: as many as there may be.
const BACKLOG: i32 = 128;

/// Removes a socket file that nobody listens on.
fn make_way(path: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Socket { path: path.into(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(Failure::NotSocket { path: path.into() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // `WouldBlock`: alive, and busy.
        Ok(_) => Err(Failure::SocketLive { path: path.into() }),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(Failure::SocketLive { path: path.into() })
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, format, process};

    /// A folder of this test alone, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("statefsd-listen-{name}-{}", process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> Socket {
            Socket { channel: "default".into(), path: self.0.join("s") }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_listener() {
        let folder = Folder::new("mode");
        for mode in [0o600, 0o666] {
            let listener = Listener::bind(folder.socket(), mode, None).unwrap();
            let found = fs::metadata(listener.path()).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
            drop(listener);
            assert!(!folder.0.join("s").exists());
        }
    }

    #[test]
    fn a_live_socket_stays_and_a_dead_one_is_replaced() {
        let folder = Folder::new("live");
        let path = folder.0.join("s");
        let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = Listener::bind(folder.socket(), 0o600, None).err().unwrap();
        assert!(matches!(refused, Failure::SocketLive { .. }), "{refused}");
        drop(live);
        assert!(path.exists(), "a dead daemon leaves its socket behind");
        let listener = Listener::bind(folder.socket(), 0o600, None).unwrap();
        // Another one took the place meanwhile: it is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_user_without_a_uid_is_nobody_in_particular() {
        assert_eq!(nobody_of("         0          0 4294967295\n", "65534\n"), None);
        assert_eq!(nobody_of("         0     100000      65536\n", "65533\n"), Some(65533));
        assert_eq!(nobody_of("0 1000 1\n1 100000 65536\n", "65534\n"), Some(65534));
        assert_eq!(nobody_of("", ""), Some(65534));

        let folder = Folder::new("nobody");
        let mut listener = Listener::bind(folder.socket(), 0o600, None).unwrap();
        let own = rustix::process::geteuid().as_raw();
        for (nobody, seen) in [(None, Some(own)), (Some(own + 1), Some(own)), (Some(own), None)] {
            listener.nobody = nobody;
            let _client = std::os::unix::net::UnixStream::connect(listener.path()).unwrap();
            let peer = listener.accept().unwrap().1;
            assert_eq!((peer.uid, peer.channel.as_str()), (seen, "default"));
        }
    }

    /// Linux lets a path fill the whole address, and then tells a length that is one more.
    #[test]
    fn a_peer_with_the_longest_path_is_accepted() {
        let folder = Folder::new("long");
        let listener = Listener::bind(folder.socket(), 0o600, None).unwrap();
        let name = "x".repeat(108 - folder.0.as_os_str().len() - 1);
        let client =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let client = client.unwrap();
        bind(&client, &SocketAddrUnix::new(folder.0.join(name)).unwrap()).unwrap();
        rustix::net::connect(&client, &SocketAddrUnix::new(listener.path()).unwrap()).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(listener.accept().unwrap().1.uid, Some(own));
    }

    #[test]
    fn what_is_no_socket_is_never_deleted() {
        let folder = Folder::new("file");
        let path = folder.0.join("s");
        fs::write(&path, "precious").unwrap();
        let refused = Listener::bind(folder.socket(), 0o600, None).err().unwrap();
        assert!(matches!(refused, Failure::NotSocket { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let nowhere = Socket { channel: "x".into(), path: folder.0.join("no/s") };
        let refused = Listener::bind(nowhere, 0o600, None).err().unwrap();
        assert!(matches!(refused, Failure::Socket { .. }), "{refused}");
    }
}
