//! The pinned Go modules in `modules/`: their programs, and the flags that these are built with.

/// A release of Kubernetes that a control plane can be of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kubernetes {
    /// The release that everything is tested on.
    #[default]
    Newest,
    /// The oldest release that is supported. It is a part, [`Kubernetes::OLDEST_PART`], which is built on demand. It has no kubectl, no
    /// real node and no static admission manifests.
    Oldest,
}

impl Kubernetes {
    /// Name of the part with the programs of the oldest release.
    pub const OLDEST_PART: &str = OLDEST.name;
}

/// A pinned Go module, in the folder of that name in `modules/`, with the programs that it builds.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) programs: &'static [Program],
    /// Flags of `go install`.
    pub(crate) flags: &'static [&'static str],
}

pub(crate) struct Program {
    /// Usual name of the program.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Name that `go install` gives it.
    pub(crate) installed: &'static str,
    /// Needed for a real node only.
    pub(crate) node: bool,
}

/// Returns the flags of `go install`, with the version for the linker: clients cannot parse the server's version without it.
macro_rules! flags {
    ($version:literal, $minor:literal) => {
        &[
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            concat!(
                "-s -w -X k8s.io/component-base/version.gitVersion=",
                $version,
                " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=",
                $minor,
            ),
        ]
    };
}

/// Flags of everything but the oldest Kubernetes.
const FLAGS: &[&str] = flags!("v1.37.2", "37");

/// Name of the module with the newest Kubernetes.
pub(crate) const KUBERNETES: &str = "kubernetes";

pub(crate) const MODULES: &[Module] = &[
    module(
        "etcd",
        &[Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", installed: "server", node: false }],
    ),
    module("kwok", &[program("kwok", "sigs.k8s.io/kwok/cmd/kwok")]),
    module(
        "containerd",
        &[containerd("containerd"), containerd("containerd-shim-runc-v2"), containerd("ctr")],
    ),
    module(
        KUBERNETES,
        &[
            program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            program("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            Program { node: true, ..program("kubelet", "k8s.io/kubernetes/cmd/kubelet") },
            Program { node: true, ..program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy") },
        ],
    ),
];

/// Programs that are not part of a control plane. Each is built on demand.
pub(crate) const PARTS: &[Module] = &[
    module(
        "snapshotter",
        &[program(
            "snapshot-controller",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
        )],
    ),
    module("helm", &[program("helm", "helm.sh/helm/v4/cmd/helm")]),
    module("registry", &[program("registry", "github.com/distribution/distribution/v3/cmd/registry")]),
    module(
        "kube-router",
        &[program("kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router")],
    ),
    module("source-controller", &[program("source-controller", "github.com/fluxcd/source-controller")]),
    module(
        "kustomize-controller",
        &[program("kustomize-controller", "github.com/fluxcd/kustomize-controller")],
    ),
    module("versitygw", &[program("versitygw", "github.com/versity/versitygw/cmd/versitygw")]),
    Module {
        name: "velero",
        programs: &[program("velero", "github.com/vmware-tanzu/velero/cmd/velero")],
        // As its releases are built: it says which version it is. Its controllers would serve metrics on port 8080 whatever its flags say, so
        // that a second one, or any other server there, ends it.
        flags: &[
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            "-s -w -X github.com/vmware-tanzu/velero/pkg/buildinfo.Version=v1.18.3 \
             -X sigs.k8s.io/controller-runtime/pkg/metrics/server.DefaultBindAddress=0",
        ],
    },
    module(
        "velero-plugin-for-aws",
        &[program(
            "velero-plugin-for-aws",
            "github.com/vmware-tanzu/velero-plugin-for-aws/velero-plugin-for-aws",
        )],
    ),
];

/// The oldest supported Kubernetes, built on demand.
pub(crate) const OLDEST: Module = Module {
    name: "kubernetes-1.33",
    programs: &[
        program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ],
    flags: flags!("v1.33.13", "33"),
};

const fn module(name: &'static str, programs: &'static [Program]) -> Module {
    Module { name, programs, flags: FLAGS }
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package, installed: name, node: false }
}

const fn containerd(name: &'static str) -> Program {
    Program { name, package: "github.com/containerd/containerd/v2/cmd/", installed: name, node: true }
}

impl Module {
    /// Returns the name of the part: that of its only program, or the module's.
    pub(crate) fn part(&self) -> &'static str {
        match self.programs {
            [program] => program.name,
            _ => self.name,
        }
    }
}

impl Program {
    /// Returns the argument of `go install`: a package, or the folder with one of its name.
    pub(crate) fn import_path(&self) -> String {
        if self.package.ends_with('/') {
            format!("{}{}", self.package, self.name)
        } else {
            self.package.to_owned()
        }
    }
}
