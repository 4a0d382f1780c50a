// words.js - every word of the page, in English and in Korean; the lecture's terms.
"use strict";

const words = {
    en: {
        title: "LeNet-5, seen thinking",
        networkTab: "Network", equationTab: "Equation", learningTab: "Learning",
        weights: "Weights: %file; they read %right % of %count test digits (%data).",
        mnist: "MNIST", builtIn: "built in, no MNIST",
        draw: "Draw a digit", drawHint: "Draw here", undo: "Undo", clear: "Clear", random: "Random test digit",
        seen: "What the network sees", seenHint: "28 × 28, centred by its centre of mass",
        answer: "Answer", probability: "Probability of each digit",
        network: "The network",
        networkHint: "Click a pixel to see where its number comes from. Arrow keys move it; Page Up and Page Down change the map.",
        moveHint: "Arrow keys move the pixel, Page Up and Page Down change the map",
        input: "Input", conv2d: "Convolution", relu: "ReLU", max_pool2d: "Max pooling", flatten: "Flatten",
        linear: "Fully connected",
        parameters: "parameters", pixel: "One value", value: "value #", place: "map #k, row #j, column #i",
        window: "window", kernel: "kernel", products: "products", product: "product", sum: "sum", bias: "bias",
        largest: "largest",
        largestProducts: "the largest products", others: "the other # together", asText: "As cnn_explain prints it",
        padding: "beyond the border (padding)",
        equation: "One kernel, one equation", image: "Image", result: "Feature map",
        source: "Image", digit: "digit", shapes: "shapes", file: "your own file", chooseFile: "Choose a picture",
        noPicture: "#: the browser cannot read it as a picture", preset: "Kernel",
        vertical: "vertical edge", horizontal: "horizontal edge", blur: "blur", sharpen: "sharpen",
        identity: "identity", own: "your own",
        size: "Kernel size", mode: "Padding", none: "none", zeros: "zeros", replicate: "replicate",
        reflect: "reflect", circular: "circular",
        stride: "Stride", dilation: "Dilation", weight: "weight", weightAt: "Weight at row #j, column #i",
        equationHint: "Move over the feature map: the window slides over the image. Arrow keys do the same.",
        learning: "Learning", run: "Run", pause: "Pause", step: "One step", reset: "Reset",
        rate: "Learning rate", batch: "Batch size", optimizer: "Optimizer",
        steps: "Steps", loss: "Loss", accuracy: "Accuracy", accuracyHint: "of 100 digits it has not seen",
        learnFrom: "It learns from 400 built-in digits, beginning with random weights.",
        lossCurve: "Loss of each step", kernels: "Kernels of the first layer",
        mapsOfOne: "What the first layer makes of one digit",
        bugs: "Break it on purpose", bug0: "No bug", bug1: "No gradient for the biases",
        bug2: "Kernel transposed in the backward pass",
        bug3: "1 / N forgotten in the loss's gradient", bug4: "First row of the window lost in the backward pass",
        bug5: "Adam's correction upside down",
        check: "Check the gradients",
        checkHint: "Backward pass against differences of the forward pass; loss and step against the textbook's.",
        checkGood: "All %n numbers are right.", checkBad: "%f of %n numbers are wrong.",
        layer: "layer",
        lesson: "A network can learn with a wrong gradient. Accuracy does not find it; the check does."
    },
    ko: {
        title: "LeNet-5가 생각하는 모습",
        networkTab: "신경망", equationTab: "컨볼루션 식", learningTab: "학습",
        weights: "가중치: %file, 테스트 숫자 %count개(%data)의 정확률 %right %.",
        mnist: "MNIST", builtIn: "내장 숫자, MNIST 없음",
        draw: "숫자 그리기", drawHint: "여기에 그리세요", undo: "되돌리기", clear: "지우기", random: "임의의 테스트 숫자",
        seen: "신경망이 보는 영상", seenHint: "28 × 28, 무게중심을 가운데로",
        answer: "예측", probability: "숫자별 확률",
        network: "신경망", networkHint: "화소를 누르면 그 값이 어떻게 계산되는지 보입니다. 화살표 키로 화소를, Page Up과 Page Down으로 특징 맵을 옮깁니다.",
        moveHint: "화살표 키로 화소를, Page Up과 Page Down으로 특징 맵을 옮깁니다",
        input: "입력", conv2d: "컨볼루션층", relu: "ReLU", max_pool2d: "최대 풀링", flatten: "평탄화", linear: "완전연결층",
        parameters: "매개변수", pixel: "값 하나", value: "값 #", place: "특징 맵 #k, 행 #j, 열 #i",
        window: "수용장", kernel: "커널", products: "곱", product: "곱", sum: "합", bias: "바이어스", largest: "최댓값",
        largestProducts: "가장 큰 곱", others: "나머지 #개의 합", asText: "cnn_explain의 출력",
        padding: "경계 밖 (덧대기)",
        equation: "커널 하나, 식 하나", image: "영상", result: "특징 맵",
        source: "영상", digit: "숫자", shapes: "도형", file: "내 파일", chooseFile: "영상 고르기",
        noPicture: "#: 브라우저가 영상으로 읽지 못합니다", preset: "커널",
        vertical: "수직 에지", horizontal: "수평 에지", blur: "흐리게", sharpen: "선명하게", identity: "항등", own: "직접 입력",
        size: "커널 크기", mode: "덧대기", none: "없음", zeros: "0 덧대기", replicate: "복사 덧대기", reflect: "반사 덧대기",
        circular: "순환 덧대기",
        stride: "보폭", dilation: "팽창", weight: "가중치", weightAt: "#j행 #i열의 가중치",
        equationHint: "특징 맵 위에서 움직이면 수용장이 영상 위를 움직입니다. 화살표 키도 됩니다.",
        learning: "학습", run: "실행", pause: "멈춤", step: "한 단계", reset: "처음부터",
        rate: "학습률", batch: "배치 크기", optimizer: "옵티마이저",
        steps: "단계", loss: "손실", accuracy: "정확률", accuracyHint: "학습에 쓰지 않은 숫자 100개",
        learnFrom: "무작위 가중치로 시작하여 내장 숫자 400개로 학습합니다.",
        lossCurve: "단계별 손실", kernels: "첫 번째 층의 커널", mapsOfOne: "첫 번째 층이 숫자 하나에서 뽑은 특징 맵",
        bugs: "일부러 망가뜨리기", bug0: "오류 없음", bug1: "바이어스의 그레이디언트 없음", bug2: "역전파에서 커널을 전치",
        bug3: "손실의 그레이디언트에서 1 / N을 빠뜨림", bug4: "역전파에서 수용장의 첫 행을 빠뜨림", bug5: "Adam의 보정을 거꾸로",
        check: "그레이디언트 검사", checkHint: "역전파를 전방 계산의 차분과, 손실과 갱신을 교과서의 식과 비교합니다.",
        checkGood: "값 %n개가 모두 맞습니다.", checkBad: "값 %n개 중 %f개가 틀립니다.",
        layer: "층",
        lesson: "그레이디언트가 틀려도 신경망은 학습합니다. 정확률로는 찾지 못하고, 검사로는 찾습니다."
    }
};

let language = "en";
const word = key => words[language][key] ?? key;

function nameEverything() {
    document.documentElement.lang = language;
    document.title = word("title");
    for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
    for (const element of document.querySelectorAll("[data-label]"))
        element.setAttribute("aria-label", word(element.dataset.label));
    for (const button of document.querySelectorAll("[data-language]"))
        button.setAttribute("aria-pressed", button.dataset.language === language);
    const about = JSON.parse(document.getElementById("about").textContent);
    document.getElementById("weights-line").textContent = word("weights").replace("%file", about.file)
        .replace("%right", about.right).replace("%count", about.count.toLocaleString("en"))
        .replace("%data", word(about.data));
}
