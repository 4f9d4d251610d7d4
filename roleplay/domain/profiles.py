"""What vendors publish of their models: data, in one row for each name.

A row fills what an ``Endpoint`` does not say; the fields are those of ``ModelProfile``. ``source`` says where the
figures come from, and the day on which that was read. A K that a page leaves open is read as 1,000, which errs on the
safe side.

Not here: Doubao's role-play models on Volcengine Ark (base URL ``https://ark.cn-beijing.volces.com/api/v3``). Their
names hold a date, or are those of an endpoint that a customer makes, so that no row could be found by name.
"""

from __future__ import annotations

from typing import Any

MINIMAX_DOMAINS = ("minimax.io", "minimaxi.com", "minimax.cn", "minimax.chat", "minimaxi.chat")
# Their addresses have no version before /chat/completions.
VERSIONLESS_HOSTS = frozenset({"api.perplexity.ai"})
NATIVE_PATH = "/v1/text/chatcompletion_v2"
THINKING_TOKENS = 8192
"""The reply cap of models that always think: what they think counts as reply."""

Row = dict[str, Any]

_ROLE_PLAY_PAGE = "platform.minimax.io/docs/api-reference/text-chat-openai, edition of April 2026"
_NEW_PAGE = "platform.minimax.io/docs/api-reference/text-openai-api, read 2026-11-28"
_MINIMAX: Row = {"base_url": "https://api.minimax.io", "domains": MINIMAX_DOMAINS, "dialect": "minimax"}
# Two figures are published for the longest reply of M2.7, M2.7-highspeed, M2.5 and M2.1: 2,048 on the page of the
# role-play API and 204,800 on the newer page, which recommends 65,536. The smaller one is taken: no server refuses it.
_M2_ROLE_PLAY: Row = _MINIMAX | {
    "window_tokens": 204_800,
    "max_output_tokens": 2048,
    "reply_tokens": THINKING_TOKENS,
    "source": f"{_ROLE_PLAY_PAGE} (longest reply 2,048); {_NEW_PAGE} (204,800)",
}
_M2: Row = _M2_ROLE_PLAY | {"max_output_tokens": 204_800, "source": _NEW_PAGE}
_M3: Row = _MINIMAX | {"window_tokens": 1_000_000, "max_output_tokens": 524_288, "source": _NEW_PAGE}

_QWEN: Row = {
    "base_url": "https://dashscope.aliyuncs.com/compatible-mode/v1",
    "domains": ("aliyuncs.com",),
    "cap_name": "max_tokens",
    "source": "alibabacloud.com/help/en/model-studio/role-play, of 2026-01-30, read 2026-11-28",
}
_DEEPSEEK: Row = {
    "base_url": "https://api.deepseek.com",
    "domains": ("deepseek.com",),
    "cap_name": "max_tokens",
    "window_tokens": 1_000_000,
    "max_output_tokens": 384_000,
    # They think unless the request says otherwise, and what they think counts as reply.
    "reply_tokens": THINKING_TOKENS,
    "source": "api-docs.deepseek.com/guides/thinking_mode, docs.apiyi.com/models/deepseek-v4-flash, read 2026-11-28",
}

ROWS: dict[str, Row] = {
    "MiniMax-M3": _M3,
    # It always thinks, and sends what it thinks apart, as reasoning_content.
    "MiniMax-M3.1-Flash-Preview": _M3 | {"reply_tokens": THINKING_TOKENS},
    "MiniMax-M2.7": _M2_ROLE_PLAY,
    "MiniMax-M2.7-highspeed": _M2_ROLE_PLAY,
    "MiniMax-M2.5": _M2_ROLE_PLAY,
    "MiniMax-M2.5-highspeed": _M2,
    "MiniMax-M2.1": _M2_ROLE_PLAY,
    "MiniMax-M2.1-highspeed": _M2,
    "MiniMax-M2": _M2,
    "M2-her": _MINIMAX
    | {
        "window_tokens": 65_536,
        "max_output_tokens": 2048,
        "path": NATIVE_PATH,
        "stream_usage": False,
        "source": "platform.minimax.io/docs/guides/text-chat, read 2026-11-28",
    },
    # Abroad: in 30,000, out 4,000; in mainland China: in 32,000, out 4,096. The smaller figures are taken.
    "qwen-plus-character": _QWEN | {"window_tokens": 32_768, "max_output_tokens": 4000},
    "qwen-flash-character": _QWEN | {"window_tokens": 8192, "max_output_tokens": 4096},
    "hunyuan-role-latest": {
        "base_url": "https://api.hunyuan.cloud.tencent.com/v1",
        "domains": ("tencent.com",),
        "cap_name": "max_tokens",
        # Messages of user and assistant must alternate, with a user's first.
        "dialect": "strict",
        "window_tokens": 32_000,
        "max_output_tokens": 4000,
        "source": "notes on the vendor's pages, in 28 K, out 4 K, of 2026-11-28; the page itself was not read",
    },
    "charglm-4": {
        "base_url": "https://open.bigmodel.cn/api/paas/v4",
        "domains": ("bigmodel.cn",),
        "cap_name": "max_tokens",
        "window_tokens": 8000,
        "max_output_tokens": 2048,  # the page gives no figure; this is the default of an endpoint
        "source": "notes on the vendor's pages, 8 K, of 2026-11-28; the page itself was not read",
    },
    "deepseek-v4-flash": _DEEPSEEK,
    "deepseek-v4-pro": _DEEPSEEK,
}
