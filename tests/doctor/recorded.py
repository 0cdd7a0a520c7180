"""What tools printed on machines in trouble, as public reports have it, shortened to the lines that are read.

A value is (output, exit code). Sources: the repository and issue beside each.
"""

# akash-network/provider-configs, pull request 12
SMI_535 = """\
Thu Feb 29 14:58:21 2024
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.129.03             Driver Version: 535.129.03   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
"""
SMI_570 = SMI_535.replace("535.129.03 ", "570.124.06 ").replace("12.2", "12.8")
SMI_470 = SMI_535.replace("535.129.03 ", "470.256.02 ").replace("12.2", "11.4")

# tinygrad/open-gpu-kernel-modules, issue 47
NVML_MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 570.124\n"
# what nvidia-smi says where the module is not loaded
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)

# nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader,nounits
QUERY_4090 = "NVIDIA GeForce RTX 4090, 8.9, 24564, 570.124.06\n"
QUERY_5090 = "NVIDIA GeForce RTX 5090, 12.0, 32607, 570.124.06\n"
QUERY_T4_535 = "Tesla T4, 7.5, 15360, 535.129.03\n"
QUERY_QUADRO_535 = "Quadro RTX 4000, 7.5, 8192, 535.129.03\nQuadro RTX 4000, 7.5, 8192, 535.129.03\n"
QUERY_P40_470 = "Tesla P40, 6.1, 24576, 470.256.02\n"

# pytorch/pytorch, issue 167244: a build of CUDA 12.4 on an RTX 5090
TORCH_CU124 = (
    '{"version": "2.7.0.dev20250310+cu124", "cuda": "12.4", '
    '"archs": ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]}'
)
# Comfy-Org/ComfyUI, pull request 16438: what PyTorch 2.9 is built for
TORCH_CU130 = (
    '{"version": "2.9.0+cu130", "cuda": "13.0", "archs": ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]}'
)
TORCH_CPU = '{"version": "2.13.0+cpu", "cuda": null, "archs": []}'

NVCC_13 = """\
nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release 13.0, V13.0.88
"""
LDCONFIG = """\
372 libs found in cache `/etc/ld.so.cache'
\tlibnvinfer.so.10 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvinfer.so.10
\tlibnvinfer.so.10.7.0 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvinfer.so.10.7.0
\tlibcudart.so.12 (libc6,x86-64) => /usr/local/cuda/lib64/libcudart.so.12
\tlibc.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libc.so.6
"""
DOCKER_WITHOUT_NVIDIA = '{"io.containerd.runc.v2":{"path":"runc"},"runc":{"path":"runc"}}\n'
DOCKER_WITH_NVIDIA = '{"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}}\n'
