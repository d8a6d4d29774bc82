//! The initial RAM file system: netdp, the tests, the tools that they call, and the modules of the network.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Built;
use super::package::Kernel;
use crate::command::{find, output, run};

/// The first process.
const INIT: &str = include_str!("init.sh");

/// Programs that the tests call and busybox lacks, or has in another form.
const TOOLS: [&str; 14] = [
    // busybox's own takes its applets for what it is told to call.
    "sh",
    "ip",
    "tc",
    "bridge",
    "ping",
    "ethtool",
    "nft",
    "iptables",
    "ip6tables",
    "iptables-save",
    "ip6tables-save",
    "iptables-restore",
    "ip6tables-restore",
    "modprobe",
];

/// Directories with what `iptables` loads by itself.
const PLUGINS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib64/xtables"];

/// Modules: protocols and filters, and what those depend on.
const MODULES: [&str; 3] = ["kernel/net", "kernel/lib", "kernel/crypto"];

/// Links without hardware (VLANs are the protocol's).
const DRIVERS: [&str; 4] = ["veth.ko", "dummy.ko", "tun.ko", "bonding"];

/// Makes the archive, and returns where it is.
pub(crate) fn make(kernel: &Kernel, netdp: &Path, tests: &[Built]) -> Result<PathBuf> {
    let directory = kernel.image.ancestors().nth(3).context("no directory of kernels")?;
    let root = directory.join(format!("{}.root", kernel.release));
    let _ = fs::remove_dir_all(&root);
    for sub in ["bin", "sbin", "dev", "etc", "proc", "run", "sys", "tmp", "tests"] {
        fs::create_dir_all(root.join(sub))?;
    }
    let image = Image { root };
    image.modules(kernel)?;
    image.programs(netdp, tests)?;
    image.script("init", INIT)?;
    let mut script = String::new();
    for Built { core, .. } in tests {
        writeln!(script, "echo \"# {0} {1}\"; /tests/{0} --test-threads=2 {1}", core.test, core.args)?;
    }
    image.script("tests/run", &script)?;
    let archive = directory.join(format!("{}.cpio.gz", kernel.release));
    let pack = format!("find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > {}", archive.display());
    run(Command::new("sh").args(["-e", "-c", &pack]).current_dir(&image.root))?;
    fs::remove_dir_all(&image.root)?;
    Ok(archive)
}

struct Image {
    root: PathBuf,
}

impl Image {
    fn script(&self, path: &str, content: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    fn modules(&self, kernel: &Kernel) -> Result<()> {
        let to = self.root.join("lib/modules").join(&kernel.release);
        let drivers = to.join("kernel/drivers/net");
        fs::create_dir_all(&drivers)?;
        for part in MODULES {
            output(Command::new("cp").arg("-r").arg(kernel.modules.join(part)).arg(to.join("kernel")))?;
        }
        for entry in fs::read_dir(kernel.modules.join("kernel/drivers/net"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // A module, which may be compressed, or a directory of modules.
            if DRIVERS.iter().any(|driver| name.starts_with(driver)) {
                output(Command::new("cp").arg("-r").arg(entry.path()).arg(&drivers))?;
            }
        }
        for list in ["modules.builtin", "modules.order"] {
            fs::copy(kernel.modules.join(list), to.join(list)).with_context(|| format!("copying {list}"))?;
        }
        run(Command::new(find("depmod").context("no depmod in PATH")?)
            .arg("-b")
            .arg(&self.root)
            .arg(&kernel.release))
    }

    fn programs(&self, netdp: &Path, tests: &[Built]) -> Result<()> {
        let busybox = find("busybox").context("no busybox in PATH")?;
        fs::copy(busybox, self.root.join("bin/busybox"))?;
        self.executable(netdp, "bin/netdp")?;
        for Built { core, path } in tests {
            self.executable(path, &format!("tests/{}", core.test))?;
        }
        for tool in TOOLS {
            let path = find(tool).with_context(|| format!("no {tool} in PATH"))?;
            // What is one program under several names (kmod, xtables-nft-multi) looks at the name.
            let name = path.canonicalize()?;
            let inside = format!("bin/{}", name.file_name().unwrap_or_default().to_string_lossy());
            self.executable(&name, &inside)?;
            if !self.root.join("bin").join(tool).exists() {
                symlink(Path::new("/").join(inside), self.root.join("bin").join(tool))?;
            }
        }
        // Where the kernel looks for it.
        symlink("/bin/modprobe", self.root.join("sbin/modprobe"))?;
        for plugins in PLUGINS.map(Path::new).into_iter().filter(|path| path.is_dir()) {
            let to = self.root.join(plugins.strip_prefix("/")?);
            fs::create_dir_all(&to)?;
            for plugin in fs::read_dir(plugins)?.flatten() {
                fs::copy(plugin.path(), to.join(plugin.file_name()))?;
            }
        }
        Ok(())
    }

    /// Copies a program without its debug information, and the libraries that it needs.
    fn executable(&self, program: &Path, inside: &str) -> Result<()> {
        let to = self.root.join(inside);
        output(Command::new("strip").arg("-o").arg(&to).arg(program))?;
        // Of a static program, ldd says so and fails.
        let libraries = Command::new("ldd").arg(program).output().context("running ldd")?;
        let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
        let paths = libraries.lines().filter_map(|line| {
            let words = line.split_whitespace();
            words.into_iter().find(|word| word.starts_with('/')).map(PathBuf::from)
        });
        for library in paths {
            let to = self.root.join(library.strip_prefix("/")?);
            fs::create_dir_all(to.parent().context("a library in /")?)?;
            fs::copy(&library, &to).with_context(|| format!("copying {}", library.display()))?;
        }
        Ok(())
    }
}
