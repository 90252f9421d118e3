//! A disk that can be full: a filesystem of its own where one can be mounted, else a limit on what processes may write.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::flow::{Flow, file_of, log_size};
use crate::support::Place;

/// Says that this test runs in a namespace where it may mount; and, set by hand, which kind of disk to use.
const KIND: &str = "CONGA_TEST_DISK";

/// How the disk is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tmpfs.
    Mounted,
    /// `RLIMIT_FSIZE`: a file can't grow beyond it. SQLite then sees a disk that fails, not one that is full.
    Limited,
}

/// A disk of a few megabytes, gone with the test.
pub(crate) struct SmallDisk {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    folder: TempDir,
}

/// Runs a test on a small disk: mounted; or mounted in a namespace of its own, to which this process can't move, so that
/// the test of that name is run once more in it; or else limited.
pub(crate) fn on_a_small_disk(test: &str, megabytes: u64, body: impl FnOnce(&SmallDisk)) {
    let wanted = std::env::var(KIND).unwrap_or_default();
    let disk = match wanted.as_str() {
        "limited" => SmallDisk::limited(),
        "namespace" => return in_a_namespace(test).unwrap_or_else(|| panic!("no namespace can be had here")),
        "mounted" => SmallDisk::mounted(megabytes).expect("a filesystem can be mounted here"),
        _ => match SmallDisk::mounted(megabytes) {
            Some(disk) => disk,
            None => match in_a_namespace(test) {
                Some(()) => return,
                None => SmallDisk::limited(),
            },
        },
    };
    println!("a small disk: {:?}", disk.kind);
    body(&disk);
}

fn in_a_namespace(test: &str) -> Option<()> {
    let unshare = |what: &[&std::ffi::OsStr]| {
        Command::new("unshare")
            .args(["-r", "-m", "--"])
            .args(what)
            .env(KIND, "mounted")
            .output()
    };
    if !unshare(&["true".as_ref()]).is_ok_and(|done| done.status.success()) {
        return None;
    }
    let this = std::env::current_exe().expect("this test");
    let done = unshare(&[
        this.as_os_str(),
        "--exact".as_ref(),
        test.as_ref(),
        "--nocapture".as_ref(),
    ])
    .expect("it starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    print!("in a namespace of its own:\n{said}");
    assert!(
        done.status.success() && said.contains("1 passed"),
        "it failed in a namespace"
    );
    Some(())
}

impl SmallDisk {
    fn mounted(megabytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={megabytes}m,nr_inodes=200"),
                "tmpfs",
            ])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self::new(Kind::Mounted, folder))
    }

    fn limited() -> Self {
        Self::new(Kind::Limited, tempfile::tempdir().expect("a folder"))
    }

    fn new(kind: Kind, folder: TempDir) -> Self {
        let place = Place {
            url: format!("sqlite:{}", folder.path().join("conga.db").display()),
            // What the tests themselves write is elsewhere.
            folder: tempfile::tempdir().expect("a folder"),
            server: None,
        };
        Self { kind, place, folder }
    }

    /// A flow whose processes the disk can be full for.
    pub(crate) fn flow(&self) -> Flow<'_> {
        let mut flow = Flow::new(&self.place);
        self.let_in(&mut flow, None);
        flow
    }

    /// What is said where the disk is full.
    pub(crate) fn complaint(&self) -> &'static str {
        match self.kind {
            Kind::Mounted => "is full; free some space there, and all goes on by itself",
            Kind::Limited => "all goes on by itself",
        }
    }

    /// Fills the disk to the last byte, for the processes of the flow and those that it starts.
    pub(crate) fn fill(&self, flow: &mut Flow<'_>) {
        self.fill_but(flow, 0);
    }

    /// Fills the disk but for so many bytes.
    pub(crate) fn fill_but(&self, flow: &mut Flow<'_>, rest: u64) {
        match self.kind {
            Kind::Mounted => {
                let mut junk = File::options()
                    .append(true)
                    .create(true)
                    .open(self.junk())
                    .expect("a file");
                let page = [0xaa; 4096];
                for size in [4096, 1] {
                    while junk.write(&page[..size]).is_ok_and(|written| written > 0) {}
                }
                let length = junk.metadata().expect("its length").len();
                junk.set_len(length.saturating_sub(rest)).expect("shorter");
            }
            Kind::Limited => {
                for (_, pid) in flow.members() {
                    prlimit(pid, &rest.to_string());
                }
                self.let_in(flow, Some(rest));
            }
        }
    }

    /// Fills the disk, but what is in the store's files may be written again.
    pub(crate) fn fill_around(&self, flow: &mut Flow<'_>) {
        let file = fs::metadata(file_of(&self.place)).map_or(0, |file| file.len());
        let rest = match self.kind {
            Kind::Mounted => 0,
            Kind::Limited => file.max(log_size(&self.place)),
        };
        self.fill_but(flow, rest);
    }

    /// Frees what was filled.
    pub(crate) fn free(&self, flow: &mut Flow<'_>) {
        match self.kind {
            Kind::Mounted => fs::remove_file(self.junk()).expect("removed"),
            Kind::Limited => {
                for (_, pid) in flow.members() {
                    prlimit(pid, "unlimited");
                }
                self.let_in(flow, None);
            }
        }
    }

    /// Lets no further file be made, though there is space for what is in them. Whether this kind of disk has such a
    /// limit.
    pub(crate) fn fill_with_files(&self) -> bool {
        let mut names = (0..).map(|number| self.folder.path().join(format!("empty-{number}")));
        self.kind == Kind::Mounted && names.find(|name| File::create(name).is_err()).is_some()
    }

    /// Removes what is on it.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(self.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
        {
            let removed = if entry.is_dir() {
                fs::remove_dir_all(&entry)
            } else {
                fs::remove_file(&entry)
            };
            removed.expect("removed");
        }
    }

    /// Those whom the limit is for: they get an error for it and no signal.
    fn let_in(&self, flow: &mut Flow<'_>, limit: Option<u64>) {
        if self.kind == Kind::Limited {
            let limit = limit.map_or("unlimited".to_owned(), |bytes| (bytes / 512).to_string());
            let script = format!("trap '' XFSZ; ulimit -S -f {limit}; exec \"$0\" \"$@\"");
            flow.through(&["sh", "-c", &script]);
        }
    }

    fn junk(&self) -> PathBuf {
        self.folder.path().join("junk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.kind == Kind::Mounted {
            // Whoever still has a file open there is killed by its own drop; the mount goes with the last of them.
            let unmounted = Command::new("umount").arg("-l").arg(self.folder.path()).status();
            let unmounted = unmounted.is_ok_and(|status| status.success()) || std::thread::panicking();
            assert!(unmounted, "{} stays mounted", self.folder.path().display());
        }
    }
}

fn prlimit(pid: u32, soft: &str) {
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={soft}:")])
        .status()
        .expect("prlimit starts (Debian: apt-get install util-linux)");
    assert!(limited.success(), "the limit of {pid} can't be set");
}
